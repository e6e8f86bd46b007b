"""Before training: where a method starts, and what its settings are worth."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from peftlab.edits import Edits
from peftlab.frozen.packing import pack
from peftlab.methods import Composed, build, parse_one
from peftlab.methods.base import REGISTRY
from tests.laws.cases import CASES, TRAINED, made, method
from tests.laws.world import FAMILIES, assert_close, task
from tests.models import tiny

each_family = pytest.mark.parametrize("family", FAMILIES)
each_case = pytest.mark.parametrize("case", CASES)
STARTS_AS_BASE = [case for case in CASES if method(case).starts_as_base]


@each_family
@pytest.mark.parametrize("case", STARTS_AS_BASE)
def test_identity_at_initialisation(case: str, family: str) -> None:
    it = made(case, family)
    rows = it.rows()
    template, tokenizer = task().template, it.model.tokenizer
    plain = [template.encode(tokenizer, e, t, 96).ids[:-1] for e, t in task().pairs("test")]
    assert [tuple(row.ids) for row in rows] == plain[:3], "a method that changes the text says so"
    expected = it.model(pack(rows, [Edits()]))
    for seed in (None, 7):
        got = it.model(pack(rows, [it.edits(it.first, seed)]))
        assert_close(family, got, expected)


@each_family
def test_the_frozen_model_is_the_plain_one(family: str) -> None:
    """What identity is measured against is itself transformers' model, one row at a time."""
    it = made("full", family)
    plain: AutoModelForCausalLM = tiny(family).eval()
    batch = pack(it.rows(), [Edits()])
    for row, got in zip(it.rows(), batch.split_kept(it.model(batch)), strict=True):
        expected = plain(torch.tensor([row.ids]), use_cache=False).logits[0, row.keep_from :]
        assert_close(family, got, expected)


@each_case
def test_the_same_seed_gives_the_same_start_whatever_else_is_random(case: str) -> None:
    it = made(case, "llama")
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = it.method.init(it.model, task(), torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before), (
        "the start draws from its own generator alone"
    )
    assert again.tensors.keys() == it.first.tensors.keys()
    assert all(torch.equal(again.tensors[n], t) for n, t in it.first.tensors.items())
    assert again.text == it.first.text


@each_case
def test_settings_survive_a_record(case: str) -> None:
    it = method(case)
    assert build(it.name, json.loads(json.dumps(it.settings()))) == it
    assert parse_one(case) == it


def test_every_registered_method_can_be_had_without_settings_and_has_words_on_it() -> None:
    for name, cls in REGISTRY.items():
        assert cls().name == name
        assert (cls.__doc__ or "").strip()


@pytest.mark.parametrize("case", TRAINED)
def test_every_tensor_is_in_one_parameter_group_at_a_positive_rate(case: str) -> None:
    it = made(case, "gpt2")
    groups = it.method.groups(it.first, 1e-3)
    assert sorted(n for group in groups for n in group["params"]) == sorted(it.first.tensors)
    assert all(group["lr"] > 0 for group in groups)
    if not isinstance(it.method, Composed):
        assert min(group["lr"] for group in groups) == 1e-3


@pytest.mark.parametrize("case", [c for c in CASES if method(c).size is not None])
def test_a_share_of_the_base_is_the_largest_size_that_stores_no_more(case: str) -> None:
    from dataclasses import replace

    shape = made(case, "llama").model.shape
    sized = method(case).with_share(shape, 0.05)
    size = getattr(sized, sized.size or "")
    assert sized.count(shape).stored <= 0.05 * shape.size
    assert replace(sized, **{sized.size: size + 1}).count(shape).stored > 0.05 * shape.size
