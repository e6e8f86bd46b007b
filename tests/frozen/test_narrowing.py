"""The last block at the kept tokens: the same numbers, and nothing computed that nobody uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from peftlab.edits import Edits
from peftlab.frozen import attention
from peftlab.frozen.dot_product import attend_row
from peftlab.frozen.forward import ForwardContext, ForwardOptions, current_forward
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from tests.frozen.hand_made import Maker
from tests.models import frozen

# Queries, keys and values in one product (Conv1D and Linear), interleaved by head, and apart.
FAMILIES = ("gpt2", "phi3", "gpt_neox", "llama", "qwen3")
LENGTH, KEPT = 40, 6


def _rows() -> list[Row]:
    rng = torch.Generator().manual_seed(5)
    rows = [torch.randint(3, 120, (LENGTH,), generator=rng).tolist() for _ in range(3)]
    return [Row(row, 0, LENGTH - KEPT) for row in rows]


def _own_block(lm: FrozenLM) -> tuple[Edits, list[torch.Tensor]]:
    names = lm.shape.block_parameters(lm.shape.layers - 1)
    tensors = {name: lm.copy_of(name).requires_grad_() for name in names}
    return Edits(weights=tensors), list(tensors.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", ["weights", "linear", "both"])
def test_states_and_gradients_are_those_of_the_whole_block(family: str, what: str) -> None:
    lm, maker = frozen(family), Maker(frozen(family).shape)
    weights, tensors = _own_block(lm)
    edits = weights if what == "weights" else maker.linear()
    edits = weights.compose(edits) if what == "both" else edits
    wanting = [*(tensors if what != "linear" else []), *maker.tensors]
    results = []
    for fast in (True, False):
        batch, options = pack(_rows(), [edits]), ForwardOptions(fast=fast)
        assert ForwardContext(batch, options).narrows is fast
        states = lm.hidden(batch, options)
        ramp = torch.linspace(0.5, 2, states.numel()).view_as(states)
        results.append((states, torch.autograd.grad((states * ramp).sum(), wanting)))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for got, expected in zip(results[0][1], results[1][1], strict=True):
        assert float((got - expected).norm()) <= 2e-5 * float(expected.norm()) + 1e-6


@pytest.mark.parametrize("family", ["gpt2", "phi3", "llama"])
def test_queries_are_made_of_kept_tokens_and_keys_and_values_once(family: str) -> None:
    lm = frozen(family)
    last, batch = lm.shape.layers - 1, pack(_rows(), [Edits()])
    resumed = ForwardOptions(resume=(last, torch.randn(1, len(batch.ids), lm.shape.hidden)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        lm.hidden(batch, resumed)
    counts = counter.get_flop_counts()["Global"]
    expected = 0
    for linear in lm.shape.linears:
        for role, spans in linear.parts.items() if linear.block == last else ():
            tokens = len(batch.ids) if role in ("k", "v") else len(batch.keep)
            expected += 2 * tokens * linear.in_features * sum(stop - start for start, stop in spans)
    products = (torch.ops.aten.mm, torch.ops.aten.addmm)
    assert sum(counts.get(kind, 0) for kind in products) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_reaches_attention_as_in_the_whole_block(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, set[tuple[torch.dtype, ...]]] = {True: set(), False: set()}

    def watched(masks: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: Any) -> Any:
        context = current_forward()
        assert context is not None
        seen[context.options.fast].add((q.dtype, k.dtype, v.dtype))
        return attend_row(masks, q, k, v, rule)

    monkeypatch.setattr(attention, "attend_row", watched)
    lm = frozen(family)
    for fast in seen:
        batch = pack(_rows(), [_own_block(lm)[0]])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            lm.hidden(batch, ForwardOptions(fast=fast))
    assert seen[True] == seen[False]
    assert all(v == torch.bfloat16 for _, _, v in seen[True])
