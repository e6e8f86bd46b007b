"""What is stored is what was trained: the same logits, and as many numbers as promised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peftlab.bases.known_models import config
from peftlab.bases.layouts import parameter_shapes
from peftlab.bases.shapes import ModelShape
from peftlab.frozen.conformance import UnsupportedModel
from peftlab.frozen.packing import pack
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.parse import parse_one
from tests.laws import world
from tests.laws.cases import CASES, made, method
from tests.laws.world import FAMILIES, task
from tests.models import REQUIRED


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_saved_and_loaded_it_gives_the_same_logits(case: str, family: str, tmp_path: Path) -> None:
    it = made(case, family)
    adaptation = it.adaptation(it.moved)
    adaptation.save(tmp_path / "stored")
    loaded = Adaptation.load(tmp_path / "stored")
    assert loaded.method == it.method
    assert loaded.edits(it.model).template == adaptation.edits(it.model).template
    with torch.no_grad():
        trained = it.model(pack(it.rows(), [it.edits(it.moved)]))
        again = it.model(pack(it.rows(), [loaded.edits(it.model)]))
    assert torch.equal(trained, again)
    assert not [path for path in (tmp_path / "stored").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", REQUIRED)
def test_counts_equal_the_closed_formula(family: str, case: str) -> None:
    model, it = world.model(family), method(case)
    try:
        for site in it.sites:
            model.conformance.require(site, it.name)
    except UnsupportedModel:
        assert (family, "parallel" in case) == ("opt", True)
        return
    state = it.init(model, task(), torch.Generator().manual_seed(0))
    with torch.no_grad():
        stored = it.materialise(state, model)
        it.edits(stored, model)
    count = it.count(model.shape)
    assert it.stored(model.shape) == {n: tuple(t.shape) for n, t in stored.tensors.items()}
    assert count.trainable == sum(tensor.numel() for tensor in state.tensors.values())
    assert count.stored == sum(tensor.numel() for tensor in stored.tensors.values())
    assert (count.trainable > 0) == it.trains


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
