"""As many numbers as promised, on every family, and as published."""

from __future__ import annotations

from functools import lru_cache

import pytest

from peftlab.bases.known_models import config
from peftlab.bases.layouts import parameter_shapes
from peftlab.bases.shapes import ModelShape
from peftlab.frozen.conformance import UnsupportedModel
from peftlab.frozen.model import FrozenLM
from peftlab.laws import Trial, settings
from peftlab.methods.parse import parse_one
from tests.laws.cases import CASES, method
from tests.laws.world import task, tokenizer
from tests.models import REQUIRED, tiny


@lru_cache(maxsize=1)
def _model(family: str) -> FrozenLM:
    return FrozenLM(tiny(family), tokenizer(), family)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", REQUIRED)
def test_counts_equal_the_closed_formula(family: str, case: str) -> None:
    model, it = _model(family), method(case)
    try:
        for site in it.sites:
            model.conformance.require(site, it.name)
    except UnsupportedModel:
        assert (family, "parallel" in case) == ("opt", True)
        return
    trial = Trial(it, model, task())
    settings.counted.check(trial)
    settings.laid_out.check(trial)
    trial.edits(trial.first)


@pytest.mark.parametrize(
    ("case", "model", "trainable", "stored"),
    [
        ("prompt_tuning:length=5", "gpt2", 3_840, 3_840),
        ("lora:rank=128,targets=q+k+v+o,layers=0", "gpt2", 786_432, 786_432),
        ("prefix_tuning:length=10,reparametrisation=mlp", "gpt2-medium", 25_750_016, 491_520),
        ("full", "gpt2", 124_439_808, 124_439_808),
        ("intrinsic:dimension=200", "gpt2", 200, 200),
    ],
)
def test_published_counts(case: str, model: str, trainable: int, stored: int) -> None:
    """methods.md: 3,840 and 786,432; the prefix paper's 0.49 M stored of 25.75 M trained."""
    known = config(model)
    count = parse_one(case).count(ModelShape.read(known, parameter_shapes(known)))
    assert (count.trainable, count.stored) == (trainable, stored)
