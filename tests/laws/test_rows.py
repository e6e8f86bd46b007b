"""Laws of rows that need the tests' own world: all methods in one batch, and a known tokenizer."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from peftlab.edits import Edits
from peftlab.frozen.packing import pack
from peftlab.laws.law import LawBroken, require_close
from peftlab.laws.trial import leaves
from peftlab.loss import token_losses, training_row
from peftlab.methods import State
from peftlab.pasts import continued
from tests.laws.cases import CASES, made
from tests.laws.world import FAMILIES, task

each_family = pytest.mark.parametrize("family", FAMILIES)
each_case = pytest.mark.parametrize("case", CASES)


@cache
def _mixed(family: str) -> dict[str, list[torch.Tensor]]:
    """The logits of three rows a case, all cases in one batch, their rows in turns."""
    them = [made(case, family) for case in CASES]
    by_owner = [it.rows(owner) for owner, it in enumerate(them)]
    rows = [row for turn in zip(*by_owner, strict=True) for row in turn]
    logits = them[0].logits(rows, *(it.edits(it.moved).detach() for it in them))
    return {case: logits[owner :: len(them)] for owner, case in enumerate(CASES)}


@each_family
@each_case
def test_a_batch_of_all_methods_equals_each_row_alone(case: str, family: str) -> None:
    it = made(case, family)
    edits = it.edits(it.moved)
    for row, got in zip(it.rows(), _mixed(family)[case], strict=True):
        torch.testing.assert_close(got, it.logits([row], edits)[0], atol=2e-5, rtol=1e-5)


@each_family
@each_case
def test_a_source_cut_at_its_left_leaves_the_rest_of_the_row(case: str, family: str) -> None:
    it = made(case, family)
    pairs = task().pairs("test")[:3]
    whole = [it.encode(example, target) for example, target in pairs]
    cut = [
        it.encode(example, target, limit=len(full.ids) - 4, truncate="start")
        for (example, target), full in zip(pairs, whole, strict=True)
    ]
    for short, full, (example, _) in zip(cut, whole, pairs, strict=True):
        source = it.model.tokenizer.encode(example.source, add_special_tokens=False)
        at = next(i for i in range(len(full.ids)) if list(full.ids[i:][:4]) == source[:4])
        assert short.ids == full.ids[:at] + full.ids[at + 4 :]
        assert (short.dropped, short.target_start) == (4, full.target_start - 4)
    state = leaves(it.moved)
    batch = pack(continued(it.model, [training_row(e) for e in cut]), [it.edits(state)])
    losses = batch.split_kept(token_losses(it.model, batch, cut))
    for encoded, loss in zip(cut, losses, strict=True):
        torch.testing.assert_close(loss, it.losses(state, [encoded]), atol=2e-5, rtol=1e-5)
    if state.tensors:
        torch.cat(losses).sum().backward()
        assert all(tensor.grad is not None for tensor in state.tensors.values())


def test_an_adaptation_without_its_tensors_is_told_by_the_laws() -> None:
    """A negative control: edits of a state with one tensor moved fail the comparison."""
    it = made("lora", "gpt2")
    name = next(n for n in it.moved.tensors if n.endswith("lora_A"))
    other = State({**it.moved.tensors, name: it.moved.tensors[name] + 0.01}, it.moved.text)
    first, second = (it.logits(it.rows(), it.edits(s)) for s in (it.moved, other))
    with pytest.raises(LawBroken, match="they differ: by up to"):
        require_close(first, second, it.tolerance, "they differ")


def test_without_edits_there_is_nothing_to_train() -> None:
    """A negative control: the frozen model's loss hangs on no gradient."""
    it = made("hard_prompt", "gpt2")
    encoded = it.encoded[:2]
    losses = token_losses(it.model, pack([training_row(e) for e in encoded], [Edits()]), encoded)
    assert not losses.requires_grad
