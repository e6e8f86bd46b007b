"""What identity is measured against is itself transformers' model, one row at a time."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from peftlab.edits import Edits
from peftlab.methods import parse_one
from peftlab.methods.base import REGISTRY
from tests.laws.cases import CASES, made, method
from tests.laws.world import FAMILIES
from tests.models import tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_the_frozen_model_is_the_plain_one(family: str) -> None:
    it = made("full", family)
    plain: AutoModelForCausalLM = tiny(family).eval()
    for row, got in zip(it.rows(), it.logits(it.rows(), Edits()), strict=True):
        expected = plain(torch.tensor([row.ids]), use_cache=False).logits[0, row.keep_from :]
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_start_is_the_same_whatever_else_is_random(case: str) -> None:
    it = made(case, "llama")
    torch.manual_seed(99)
    again = it.start()
    assert again.tensors.keys() == it.first.tensors.keys()
    assert all(torch.equal(again.tensors[n], t) for n, t in it.first.tensors.items())
    assert again.text == it.first.text


@pytest.mark.parametrize("case", CASES)
def test_a_method_is_what_its_words_say(case: str) -> None:
    assert parse_one(case) == method(case)


def test_every_registered_method_can_be_had_without_settings() -> None:
    for name, cls in REGISTRY.items():
        assert cls().name == name
        assert (cls.__doc__ or "").strip()
