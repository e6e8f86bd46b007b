"""Stacked edits against the loop over owners, on batches of every method at once."""

from __future__ import annotations

import pytest
import torch

from peftlab.edits import Edits, map_tensors
from peftlab.frozen.bank import Bank
from peftlab.frozen.batch import Past
from peftlab.frozen.cache import KeyValueCache
from peftlab.frozen.forward import ForwardContext, ForwardOptions
from peftlab.frozen.packing import Row, pack
from tests.laws.cases import CASES, made
from tests.laws.world import FAMILIES, model


def _decoding(family: str, bank: Bank | None, counts: list[int], first: int = 0) -> ForwardContext:
    """Rows with one new token each after four, `counts[i % len]` of them for the i-th case."""
    owners = [_edits(case, family) for case in CASES]
    rows, slot = [], 0
    cache = KeyValueCache(len(CASES) * max(counts), 32)
    for owner in range(first, len(CASES)):
        for _ in range(counts[owner % len(counts)]):
            rows.append(Row([7 + slot % 90], owner, -1, Past(slot, 4)))
            slot += 1
    lm = model(family)
    for block in range(lm.shape.layers):
        size = (lm.shape.kv_heads, 4, lm.shape.head_dim)
        for i in range(slot):
            seen = torch.randn(size, generator=torch.Generator().manual_seed(i))
            cache.write(block, i, 0, seen, -seen)
    return ForwardContext(pack(rows, owners), ForwardOptions(cache=cache, bank=bank))


def _edits(case: str, family: str) -> Edits:
    it = made(case, family)
    return map_tensors(it.edits(it.moved), lambda tensor: tensor.detach().clone())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("counts", [[1], [1, 3, 2], [0, 1]])
def test_stacked_equals_the_loop(family: str, counts: list[int]) -> None:
    bank, lm = Bank(), model(family)
    with torch.no_grad():
        for first in (0, 5, 20, 0):  # owners come and go, so that slots are filled anew
            expected = lm.run(_decoding(family, None, counts, first))
            got = _decoding(family, bank, counts, first)
            assert got.whole.placements.few, "the bank is in use"
            torch.testing.assert_close(lm.run(got), expected, atol=2e-5, rtol=1e-5)
            assert len(got.whole.placements), "and was asked"


def test_what_is_no_number_stays_with_its_owner() -> None:
    lm, bank = model("llama"), Bank()
    with torch.no_grad():
        healthy = lm.run(_decoding("llama", None, [1]))
        sickening = _decoding("llama", bank, [1])
        sick = CASES.index("lora")
        for edit in sickening.batch.owners[sick].linear.values():
            edit.down.fill_(float("nan"))
        logits = lm.run(sickening)
    assert not logits[sick].isfinite().all()
    others = [i for i in range(len(CASES)) if i != sick]
    torch.testing.assert_close(logits[others], healthy[others], atol=2e-5, rtol=1e-5)


def test_gradients_take_the_loop() -> None:
    context = _decoding("gpt2", Bank(), [1])
    wanted = [(owner, None) for owner in context.batch.spans]
    assert context.divide(wanted) == ([], wanted)
