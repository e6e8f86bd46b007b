"""Rates fall with a base's width, and those of prompts go by how large its embeddings are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from peftlab.bases.scale import SEARCHED, Scale
from peftlab.methods import REGISTRY, parse_one
from peftlab.methods.composed import Composed
from tests.laws.cases import made
from tests.models import frozen

_WIDE = replace(SEARCHED, hidden=4 * SEARCHED.hidden)
_SMALL = replace(SEARCHED, embedding=SEARCHED.embedding / 5)


@pytest.mark.parametrize("name", sorted(n for n, method in REGISTRY.items() if method.trains))
def test_a_rate_is_the_searched_one_on_the_base_of_the_search(name: str) -> None:
    method = parse_one(name)
    assert method.rate_on(SEARCHED) == pytest.approx(method.learning_rate)


@pytest.mark.parametrize("name", ["lora", "full", "bottleneck", "prefix_tuning", "p_tuning", "ia3"])
def test_a_wide_base_takes_lower_rates(name: str) -> None:
    method = parse_one(name)
    assert method.rate_on(_WIDE) == pytest.approx(method.learning_rate * 4**-0.78)
    assert method.rate_on(_SMALL) == method.rate_on(SEARCHED)


@pytest.mark.parametrize("spec", ["prompt_tuning", "p_tuning:encoder=none"])
def test_vectors_move_by_a_share_of_the_embeddings(spec: str) -> None:
    method = parse_one(spec)
    assert method.rate_on(_SMALL) == pytest.approx(method.learning_rate / 5)
    assert method.rate_on(_WIDE) == method.rate_on(SEARCHED)


def test_vectors_beside_an_encoder_do_so_too() -> None:
    it = made("p_tuning:length=4", "llama")
    for scale in (SEARCHED, _WIDE, _SMALL):
        encoder, free = it.method.groups(it.first, it.method.rate_on(scale), scale)
        assert free["params"] == ["embedding"]
        assert free["lr"] == pytest.approx(10 * it.method.learning_rate * scale.spread)
        assert encoder["lr"] == it.method.rate_on(scale)


def test_composed_methods_keep_the_rates_that_each_has_there() -> None:
    it = made("lora:rank=2,dropout=0.1+prompt_tuning:length=4", "llama")
    assert isinstance(it.method, Composed)
    for scale in (SEARCHED, _WIDE, _SMALL):
        for factor in (1.0, 3.0):  # three times the own rate is three times each
            groups = it.method.groups(it.first, factor * it.method.rate_on(scale), scale)
            rates = {name: group["lr"] for group in groups for name in group["params"]}
            for place, part in enumerate(it.method.parts):
                own = [rate for name, rate in rates.items() if name.startswith(f"{place}.")]
                assert own == pytest.approx([factor * part.rate_on(scale)] * len(own))


def test_a_bases_scale_is_read_off_it() -> None:
    model = frozen("gpt2")
    table = model.model.get_input_embeddings().weight.detach()
    assert model.scale.hidden == table.shape[1]
    assert model.scale.embedding == pytest.approx(float(table.std()), rel=5e-3)
    assert Scale() == SEARCHED


@pytest.mark.parametrize("spec", ["prompt_tuning", "p_tuning", "p_tuning:placement=first"])
def test_a_prompt_is_as_long_as_the_papers_or_a_fifth_of_a_short_context(spec: str) -> None:
    method, shape = parse_one(spec), frozen("llama").shape
    assert method.stored(replace(shape, context=2048))["prompt"] == (100, shape.hidden)
    assert method.stored(shape)["prompt"] == (shape.context // 5, shape.hidden)
    it = made(spec, "llama")
    rows = it.rows()
    pseudo = [sum(token < 0 for token in row.ids) for row in rows]
    assert set(pseudo) == {shape.context // 5}
    assert torch.isfinite(
        it.moved.tensors["prompt" if "prompt" in it.moved.tensors else "embedding"]
    ).all()


def test_shares_of_a_rate_are_told_where_parts_have_rates_of_their_own() -> None:
    both = parse_one("lora+prompt_tuning")
    rates = [part.rate_on(_WIDE) for part in (parse_one("lora"), parse_one("prompt_tuning"))]
    assert both.shares(_WIDE) == pytest.approx([rate / min(rates) for rate in rates], rel=1e-3)
    assert parse_one("hard_prompt+lora").shares(_WIDE) == parse_one("lora").shares(_WIDE) == []
