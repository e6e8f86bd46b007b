# A fresh clone needs only Python ≥ 3.11: every target makes the virtual environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WIDE := .venv-wide

FOLDER ?= $(PEFTLAB_REAL_MODEL)
REAL = $(patsubst %/,%,$(or $(FOLDER),$(error say where the real model is: FOLDER=…)))

STUDIES ?= length rank layers init alpha instruction data scale forgetting spectrum intrinsic transfer begin convert

.PHONY: help setup demo studies test test-all real-model test-real test-real-sample test-wide check format demo-model clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml plugins/peftlab-meteor/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]' --editable plugins/peftlab-meteor
	touch $@

setup: $(INSTALLED) ## make the virtual environment

demo: $(INSTALLED) ## compare five methods on the bundled demo, offline, in under 4 minutes
	$(BIN)/peftlab compare

studies: $(INSTALLED) ## every study on the demo, its figure into docs/studies; what is finished is kept
	for name in $(STUDIES); do \
	  $(BIN)/peftlab study $$name --steps 150 --batch-size 8 --test-limit 60 || exit 1; \
	  cp runs/studies/$$name/figure.svg docs/studies/$$name.svg; \
	done

test: $(INSTALLED) ## laws and units, under 7 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not real and not wide"

test-all: $(INSTALLED) ## the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow and not real and not wide"

real-model: $(INSTALLED) ## make SmolLM2-135M-Instruct as FOLDER and FOLDER.gguf: 93 MB, a minute
	$(BIN)/python -m bench.real_model $(REAL) --keep-gguf $(REAL).gguf

test-real: $(INSTALLED) ## the tests on a real model, in FOLDER or PEFTLAB_REAL_MODEL
	PEFTLAB_REAL_MODEL=$(REAL) $(BIN)/python -m pytest -m real tests/real

test-real-sample: $(INSTALLED) ## those of them that CI runs
	PEFTLAB_REAL_MODEL=$(REAL) $(BIN)/python -m pytest -m "real and sample" tests/real

$(WIDE)/.installed: tests/wide/requirements.txt
	$(PYTHON) -m venv $(WIDE)
	$(WIDE)/bin/python -m pip install --quiet --requirement $<
	touch $@

$(WIDE)/jsonschema-4.26.0.tar.gz: $(WIDE)/.installed
	$(WIDE)/bin/python -m pip download --quiet --no-deps --no-binary :all: --dest $(WIDE) jsonschema==4.26.0

test-wide: $(INSTALLED) $(WIDE)/jsonschema-4.26.0.tar.gz ## the tests with foreign programs; with PEFTLAB_REAL_MODEL on that too
	PEFTLAB_WIDE=$(CURDIR)/$(WIDE)/bin/python $(BIN)/python -m pytest -m wide tests/wide

check: $(INSTALLED) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo-model: $(INSTALLED) ## make the bundled model again from the generated corpus
	$(BIN)/python -m peftlab.demo.pretrain --out peftlab/demo/model

clean: ## remove what can be made again
	rm -rf $(VENV) $(WIDE) .pytest_cache .mypy_cache .ruff_cache runs
