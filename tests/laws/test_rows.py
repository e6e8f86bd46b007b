"""Where a row lies changes nothing: among other owners, packed, sharing a start, from a cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch

from peftlab.edits import Edits
from peftlab.frozen.batch import Past
from peftlab.frozen.cache import KeyValueCache
from peftlab.frozen.forward import ForwardContext, ForwardOptions
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from peftlab.generation import Request, generate
from peftlab.loss import token_losses, training_row
from peftlab.methods import State
from peftlab.tasks import Example
from tests.laws.cases import CASES, TRAINED, Made, leaves, made
from tests.laws.world import FAMILIES, assert_close, slack, task

each_family = pytest.mark.parametrize("family", FAMILIES)
each_case = pytest.mark.parametrize("case", CASES)


@cache
def _mixed(family: str, cases: tuple[str, ...]) -> dict[str, list[torch.Tensor]]:
    """The logits of three rows a case, all cases in one batch, their rows in turns."""
    them = [made(case, family) for case in cases]
    with torch.no_grad():
        owners = [it.edits(it.moved) for it in them]
        by_owner = [it.rows(owner) for owner, it in enumerate(them)]
        rows = [row for turn in zip(*by_owner, strict=True) for row in turn]
        batch = pack(rows, owners)
        logits = batch.split_kept(them[0].model(batch))
    return {case: logits[owner :: len(them)] for owner, case in enumerate(cases)}


@each_family
@each_case
def test_a_batch_of_all_methods_equals_each_row_alone(
    case: str, family: str, cases: tuple[str, ...] = CASES
) -> None:
    it = made(case, family)
    with torch.no_grad():
        edits = it.edits(it.moved)
        for row, got in zip(it.rows(), _mixed(family, cases)[case], strict=True):
            expected = it.model(pack([row], [edits]))
            assert_close(family, got, expected)


@each_family
@each_case
def test_packed_equals_separate_and_a_start_run_once_equals_one_a_row(
    case: str, family: str
) -> None:
    it = made(case, family)
    alone = [_losses(it, share=False, fast=False, only=i) for i in range(3)]
    expected = torch.cat([losses for losses, _ in alone])
    gradients = _summed([found for _, found in alone])
    for share, fast in ((True, True), (False, True), (False, False)):
        losses, found = _losses(it, share, fast)
        assert_close(family, losses, expected)
        same_gradients(found, gradients, family)


def _losses(
    it: Made, share: bool, fast: bool, only: int | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The losses of three rows' target tokens, and the gradients of their sum."""
    encoded = it.encoded()[:3] if only is None else [it.encoded()[only]]
    state = leaves(it.moved)
    rows = [training_row(e) for e in encoded]
    batch = pack(rows, [it.edits(state)], share=share)
    losses = token_losses(it.model, batch, encoded, options=ForwardOptions(fast=fast))
    if not state.tensors:
        return losses, {}
    found = torch.autograd.grad(losses.sum(), list(state.tensors.values()))
    return losses.detach(), dict(zip(state.tensors, found, strict=True))


def _summed(found: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([each[name] for each in found]).sum(0) for name in found[0]}


def same_gradients(
    got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], family: str = ""
) -> None:
    """To 1e-5, of each tensor's own norm and, where that is nearly nothing, of the norm of all."""
    share = 1e-5 * slack(family)
    whole = sum(float(g.norm()) ** 2 for g in expected.values()) ** 0.5
    for name, gradient in expected.items():
        gap = float((got[name] - gradient).norm())
        assert gap <= share * float(gradient.norm()) + 0.1 * share * whole, f"{name}: {gap:.1e}"


@each_family
@each_case
def test_nothing_changes_below_the_lowest_block(case: str, family: str) -> None:
    """What is kept of the trunk, and where backward ends, hang on this."""
    it = made(case, family)
    with torch.no_grad():
        edits = it.edits(it.moved)
        lowest = edits.lowest_block(it.model.shape)
        if lowest == 0:
            return  # promises nothing
        kept = []
        for changed in (Edits(), edits):
            wanted = ForwardOptions(keep_input_of=min(lowest, it.model.shape.layers - 1))
            context = ForwardContext(pack(it.rows(), [changed]), wanted)
            it.model.run(context)
            assert context.kept_input is not None
            kept.append(context.kept_input)
    assert torch.equal(*kept)


@each_family
@each_case
def test_cached_decoding_equals_the_uncached_forward(case: str, family: str) -> None:
    it = made(case, family)
    rows = it.rows()
    with torch.no_grad():
        edits = it.edits(it.moved)
        batch = pack(rows, [edits])
        expected = batch.split_kept(it.model(batch))
        for lead in (0, _common_lead(rows)):
            got = _decoded(it.model, edits, rows, lead)
            for ours, theirs in zip(got, expected, strict=True):
                assert_close(family, ours, theirs, atol=5e-5, rtol=1e-4)


def _common_lead(rows: Sequence[Row]) -> int:
    first = rows[0].ids
    limit = min(row.keep_from for row in rows)
    return next((i for i in range(limit) if any(r.ids[i] != first[i] for r in rows)), limit)


def _decoded(model: FrozenLM, edits: Edits, rows: Sequence[Row], lead: int) -> list[torch.Tensor]:
    """Every row's prompt in one forward, then its target token by token, from a cache.

    lead: so many tokens at the start of all rows are run once and written into the slots.
    """
    edits = model.with_lead(edits, rows[0].ids[:lead])
    cache = KeyValueCache(len(rows) + 1, capacity=96)
    slots = [slot + 1 for slot in range(len(rows))]  # not from 0, so that a wrong slot is seen
    for block, kvs in edits.attention.items():
        plain = [kv for kv in kvs if kv.gate is None]
        if plain:
            keys, values = (
                torch.cat(x, -2) for x in zip(*((e.keys, e.values) for e in plain), strict=True)
            )
            for slot in slots:
                cache.write(block, slot, 0, keys, values)
    past = edits.prefix_length
    prompts = [
        Row(row.ids[lead : row.keep_from + 1], 0, -1, Past(slot, past))
        for row, slot in zip(rows, slots, strict=True)
    ]
    batch, options = pack(prompts, [edits]), ForwardOptions(cache=cache)
    found = [[logits] for logits in batch.split_kept(model(batch, options))]
    for step in range(max(len(row.ids) - row.keep_from for row in rows) - 1):
        going = [i for i, row in enumerate(rows) if row.keep_from + 1 + step < len(row.ids)]
        places = [rows[i].keep_from + 1 + step for i in going]
        tokens = [
            Row([rows[i].ids[at]], 0, -1, Past(slots[i], past + at - lead))
            for i, at in zip(going, places, strict=True)
        ]
        batch = pack(tokens, [edits])
        for i, logits in zip(going, batch.split_kept(model(batch, options)), strict=True):
            found[i].append(logits)
    return [torch.cat(logits) for logits in found]


@each_family
@each_case
def test_generated_tokens_are_those_of_the_uncached_forward(case: str, family: str) -> None:
    it = made(case, family)
    sources = ["the cat sings", "old dog", "rain falls over the small house"]
    adaptation = it.adaptation(it.moved)
    replies = generate(it.model, [Request(adaptation, source, 4) for source in sources])
    for source, reply in zip(sources, replies, strict=True):
        prompt = it.encode(Example(source, ()), None).ids
        end = it.model.tokenizer.eos_token_id
        tokens = [*reply.tokens, end] if reply.finished == "end" else list(reply.tokens)
        with torch.no_grad():
            row = Row([*prompt, *tokens[:-1]], 0, len(prompt) - 1)
            plain = ForwardOptions(fast=False)
            logits = it.model(pack([row], [it.edits(it.moved)]), plain)
        assert logits.argmax(-1).tolist() == tokens


@each_family
@each_case
def test_a_source_cut_at_its_left_leaves_the_rest_of_the_row(case: str, family: str) -> None:
    it = made(case, family)
    pairs = task().pairs("test")[:3]
    whole = [it.encode(example, target) for example, target in pairs]
    cut = [
        it.encode(example, target, room=len(full.ids) - 4, truncate="start")
        for (example, target), full in zip(pairs, whole, strict=True)
    ]
    for short, full, (example, _) in zip(cut, whole, pairs, strict=True):
        source = it.model.tokenizer.encode(example.source, add_special_tokens=False)
        at = next(i for i in range(len(full.ids)) if list(full.ids[i:][:4]) == source[:4])
        assert short.ids == full.ids[:at] + full.ids[at + 4 :]
        assert (short.dropped, short.target_start) == (4, full.target_start - 4)
    state = leaves(it.moved)
    batch = pack([training_row(e) for e in cut], [it.edits(state)])
    losses = batch.split_kept(token_losses(it.model, batch, cut))
    for encoded, loss in zip(cut, losses, strict=True):
        alone = pack([training_row(encoded)], [it.edits(state)])
        assert_close(family, loss, token_losses(it.model, alone, [encoded]))
    if state.tensors:
        torch.cat(losses).sum().backward()
        assert all(tensor.grad is not None for tensor in state.tensors.values())


def test_a_row_alone_does_not_see_a_state_that_moves_another() -> None:
    """The laws above can fail: a moved state gives other logits than the first one."""
    for case in TRAINED:
        it = made(case, "llama")
        with torch.no_grad():
            rows = it.rows()
            first, moved = (it.model(pack(rows, [it.edits(s)])) for s in (it.first, it.moved))
        assert float((first - moved).abs().max()) > 1e-2, case


def test_an_adaptation_without_its_tensors_is_told_by_the_laws() -> None:
    """A negative control: edits of a state with one tensor moved fail the comparison."""
    it = made("lora", "gpt2")
    name = next(n for n in it.moved.tensors if n.endswith("lora_A"))
    other = State({**it.moved.tensors, name: it.moved.tensors[name] + 0.01}, it.moved.text)
    rows = it.rows()
    with torch.no_grad():
        first, second = (it.model(pack(rows, [it.edits(s)])) for s in (it.moved, other))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(first, second, atol=2e-5, rtol=1e-5)
