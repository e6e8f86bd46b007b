"""Rows packed with other owners' rows give what each gives alone, logits and gradients."""

from __future__ import annotations

import threading

import pytest
import torch

from peftlab.edits import Edits
from peftlab.frozen.forward import ForwardContext, ForwardOptions
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from tests.frozen.hand_made import Maker
from tests.models import frozen

FAMILIES = ("gpt2", "llama", "qwen3", "gemma3_text")


def _owners(lm: FrozenLM) -> tuple[list[Edits], Maker]:
    maker = Maker(lm.shape)
    top = {
        n: lm.gather(n)
        for n in lm.shape.parameters
        if lm.shape.block_of(n) in (None, lm.shape.layers - 1)
    }
    owners = [
        Edits(),
        maker.embeddings(),
        maker.prefix(),
        maker.gated(),
        maker.linear(),
        maker.sublayer(),
        maker.weights(top),
        maker.embeddings().compose(maker.linear()).compose(maker.gated()),
    ]
    return owners, maker


def _rows(owners: list[Edits], seed: int = 0) -> list[Row]:
    """Two rows an owner, in shuffled order, a soft prompt first and in the middle of the row."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for owner in [*range(len(owners)), *reversed(range(len(owners)))]:
        length = int(torch.randint(9, 30, (), generator=generator))
        ids = torch.randint(3, 120, (length,), generator=generator).tolist()
        if owners[owner].embeddings is not None:
            ids = [-1, -2, -3, -4, *ids[:3], -5, -6, *ids[3:]]
        rows.append(Row(ids, owner, len(ids) - 6))
    return rows


def _alone(lm: FrozenLM, owners: list[Edits], row: Row) -> torch.Tensor:
    return lm(pack([Row(row.ids, 0, row.keep_from)], [owners[row.owner]]))


def _loss(logits: list[torch.Tensor]) -> torch.Tensor:
    return sum((x.log_softmax(-1)[:, 7].sum() for x in logits), torch.zeros(()))


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_batch_equals_each_row_alone(family: str) -> None:
    lm = frozen(family)
    owners, maker = _owners(lm)
    rows = _rows(owners)
    batch = pack(rows, owners)
    mixed = batch.split_kept(lm(batch))
    alone = [_alone(lm, owners, row) for row in rows]
    for got, expected in zip(mixed, alone, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    together = torch.autograd.grad(_loss(mixed), maker.tensors)
    separate = torch.autograd.grad(_loss(alone), maker.tensors)
    for got, expected in zip(together, separate, strict=True):
        assert float((got - expected).norm()) <= 1e-5 * float(expected.norm())
        assert float(expected.norm()) > 0 or family == "gpt2"


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_blocks_give_the_same_gradients_after_another_batch(family: str) -> None:
    lm = frozen(family)
    owners, maker = _owners(lm)
    rows = _rows(owners)
    plain = torch.autograd.grad(_loss([lm(pack(rows, owners))]), maker.tensors)
    loss = _loss([lm(pack(rows, owners), ForwardOptions(checkpoint=True))])
    with torch.no_grad():
        lm(pack(_rows(owners, seed=1)[:3], owners))
    gradients: list[torch.Tensor] = []
    thread = threading.Thread(
        target=lambda: gradients.extend(torch.autograd.grad(loss, maker.tensors))
    )
    thread.start()
    thread.join()
    for got, expected in zip(gradients, plain, strict=True):
        assert float((got - expected).norm()) <= 1e-5 * float(expected.norm()) + 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_start_equals_start_in_every_row(family: str) -> None:
    lm = frozen(family)
    maker = Maker(lm.shape)
    edits = maker.embeddings().compose(maker.linear()).compose(maker.prefix())
    rows = [Row([-1, -2, -3, -4, -5, -6, 9, *range(20, 26 + n)], 0, 9) for n in (0, 4, 7)]
    rows[2] = Row([*rows[2].ids[:7], 33, *rows[2].ids[8:]], 0, 9)
    batch = pack(rows, [edits])
    assert batch.segments[0].length == 7
    logits = lm(batch)
    assert len(batch.ids) < sum(len(row.ids) for row in rows)
    separate = lm(pack(rows, [edits], share=False))
    torch.testing.assert_close(logits, separate, atol=1e-5, rtol=1e-5)
    for got, expected in zip(
        torch.autograd.grad(_loss([logits]), maker.tensors),
        torch.autograd.grad(_loss([separate]), maker.tensors),
        strict=True,
    ):
        assert float((got - expected).norm()) <= 1e-5 * float(expected.norm()) + 1e-7


@pytest.mark.parametrize("family", FAMILIES)
def test_resuming_at_any_block_is_exact(family: str) -> None:
    lm = frozen(family)
    rows = [Row(list(range(5, 25)), 0, 3), Row(list(range(30, 41)), 0, 2)]
    for block in range(lm.shape.layers):
        first = ForwardContext(pack(rows, [Edits()]), ForwardOptions(keep_input_of=block))
        expected = lm.run(first)
        assert first.kept_input is not None
        resumed = ForwardOptions(resume=(block, first.kept_input))
        assert torch.equal(lm(pack(rows, [Edits()]), resumed), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_editing_leaves_the_plain_model_as_it_was(family: str) -> None:
    lm = frozen(family)
    owners, maker = _owners(lm)
    before = lm.fingerprint
    _loss([lm(pack(_rows(owners), owners))]).backward()
    del lm.__dict__["fingerprint"]
    assert lm.fingerprint == before
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())
    assert all(t.grad is not None for t in maker.tensors)
