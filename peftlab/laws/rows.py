"""Where a row lies changes nothing: among other owners, packed, sharing a start, from a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from peftlab.edits import Edits
from peftlab.frozen.batch import Past
from peftlab.frozen.cache import KeyValueCache
from peftlab.frozen.forward import ForwardContext, ForwardOptions
from peftlab.frozen.packing import Row, pack
from peftlab.generation import Request, generate
from peftlab.laws.law import (
    NotApplicable,
    Tensors,
    law,
    require,
    require_close,
    require_close_gradients,
)
from peftlab.laws.trial import gradients, leaves
from peftlab.pasts import continued
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.laws.trial import Trial

_NEW_TOKENS = 4
_DECODING = 2.5  # times the tolerance: other operations, and errors that add up over tokens


@law("packed rows are rows alone, and a start that is run once is one run for each")
def packed(it: Trial) -> None:
    count = range(len(it.encoded))
    alone = [_run(it, share=False, fast=False, only=i) for i in count]
    expected = torch.cat([losses for losses, _ in alone])
    summed = {n: torch.stack([own[n] for _, own in alone]).sum(0) for n in alone[0][1]}
    for share, fast in ((True, True), (False, True), (False, False)):
        losses, own = _run(it, share=share, fast=fast)
        told = f"losses of packed rows with share={share}, fast={fast} are not those alone"
        require_close([losses], [expected], it.tolerance, told)
        require_close_gradients(own, summed, it.tolerance)


def _run(
    it: Trial, *, share: bool, fast: bool, only: int | None = None
) -> tuple[torch.Tensor, Tensors]:
    """The losses of the rows' target tokens, and the gradients of their sum."""
    encoded = it.encoded if only is None else [it.encoded[only]]
    state = leaves(it.moved)
    losses = it.losses(state, encoded, share=share, options=ForwardOptions(fast=fast))
    if state.tensors:
        losses.sum().backward()
    return losses.detach(), gradients(state)


@law("rows in a mixed batch are rows alone")
def mixed(it: Trial) -> None:
    owners = [it.edits(it.moved), *it.neighbours]
    rows = [it.plain_rows(number) if number else it.rows() for number in range(len(owners))]
    logits = it.logits([row for turn in zip(*rows, strict=True) for row in turn], *owners)
    for number, (owner, own) in enumerate(zip(owners, rows, strict=True)):
        told = "it changes rows of others" if number else "its rows differ from those alone"
        alone = [it.logits([row._replace(owner=0)], owner)[0] for row in own]
        require_close(logits[number :: len(owners)], alone, it.tolerance, told)


@law("nothing changes below the lowest block")
def below(it: Trial) -> None:
    """What is kept of the trunk, and where backward ends, hang on this."""
    edits, layers = it.edits(it.moved).detach(), it.model.shape.layers
    lowest = edits.lowest_block(it.model.shape)
    if lowest == 0:
        raise NotApplicable("it changes what the first block is given or does")
    options = ForwardOptions(keep_input_of=min(lowest, layers - 1))
    kept: list[torch.Tensor] = []
    for changed in (Edits(), edits):
        batch = pack(continued(it.model, it.rows()), [changed], device=it.model.device)
        context = ForwardContext(batch, options)
        with torch.no_grad():
            it.model.run(context)
        assert context.kept_input is not None
        kept.append(context.kept_input)
    require(torch.equal(*kept), f"the input of block {lowest}, its lowest, is another")


@law("decoding from a cache is the uncached forward")
def cached(it: Trial) -> None:
    rows, edits = it.rows(), it.edits(it.moved).detach()
    expected = it.logits(rows, edits)
    for lead in (0, _common_lead(rows)) if edits.begin == "row" else (0,):
        got = _decoded(it.model, edits, rows, lead)
        told = f"logits from a cache differ, {lead} tokens run once for all rows"
        require_close(got, expected, _DECODING * it.tolerance, told)


def _common_lead(rows: Sequence[Row]) -> int:
    first = rows[0].ids
    limit = min(row.keep_from for row in rows)
    return next((i for i in range(limit) if any(r.ids[i] != first[i] for r in rows)), limit)


@torch.no_grad()
def _decoded(model: FrozenLM, edits: Edits, rows: Sequence[Row], lead: int) -> list[torch.Tensor]:
    """Every row's prompt in one forward, then its target token by token, from a cache.

    lead: so many tokens at the start of all rows are run once and written into the slots.
    """
    edits = model.with_lead(edits, rows[0].ids[:lead])
    slots = [slot + 1 for slot in range(len(rows))]  # not from 0, so that a wrong slot is seen
    cache = KeyValueCache(len(rows) + 1, capacity=model.shape.context)
    past, options = edits.prefix_length, ForwardOptions(cache=cache)
    for row, slot in zip(rows, slots, strict=True):
        if row.begin:
            source = Row(row.ids[: row.begin], past=Past(slot, 0))
            model(pack([source], [Edits()], device=model.device), options)
        _write_prefix(cache, slot, model, edits, row.begin)
    prompts = [
        Row(row.ids[max(lead, row.begin) : row.keep_from + 1], 0, -1, Past(slot, past + row.begin))
        for row, slot in zip(rows, slots, strict=True)
    ]
    batch = pack(prompts, [edits], device=model.device)
    pieces = [[logits] for logits in batch.split_kept(model(batch, options))]
    for step in range(max(len(row.ids) - row.keep_from for row in rows) - 1):
        going = [i for i, row in enumerate(rows) if row.keep_from + 1 + step < len(row.ids)]
        places = [rows[i].keep_from + 1 + step for i in going]
        tokens = [
            Row([rows[i].ids[at]], 0, -1, Past(slots[i], past + at - lead))
            for i, at in zip(going, places, strict=True)
        ]
        batch = pack(tokens, [edits], device=model.device)
        for i, logits in zip(going, batch.split_kept(model(batch, options)), strict=True):
            pieces[i].append(logits)
    return [torch.cat(logits) for logits in pieces]


def _write_prefix(
    cache: KeyValueCache, slot: int, model: FrozenLM, edits: Edits, begin: int
) -> None:
    """Write the edits' own keys and values into a slot, after the tokens before the cue."""
    for block, entries in edits.attention.items():
        plain = [(kv.keys, kv.values) for kv in entries if kv.gate is None]
        if plain:
            keys, values = (torch.cat(parts, -2) for parts in zip(*plain, strict=True))
            if edits.begin == "cue":
                keys = model.rotary.turned(block, keys, begin)
            cache.write(block, slot, begin, keys, values)


@law("generated tokens are those of the uncached forward")
def generated(it: Trial) -> None:
    adaptation, examples = it.adaptation(it.moved), it.task.test[: len(it.encoded)]
    replies = generate(it.model, [Request(adaptation, e, _NEW_TOKENS) for e in examples])
    plain = ForwardOptions(fast=False)
    edits = adaptation.edits(it.model)
    template = edits.template or adaptation.template
    ends = template.end_ids(it.model.tokenizer)
    limit = max_row_tokens(it.model.shape.context, taken=edits.prefix_length + _NEW_TOKENS)
    for example, reply in zip(examples, replies, strict=True):
        encoded = template.encode(it.model.tokenizer, example, None, limit)
        tokens, ended = list(reply.tokens), reply.finished == "end"
        read = [*encoded.ids, *(tokens if ended else tokens[:-1])]
        row = Row(read, 0, len(encoded.ids) - 1, begin=encoded.begin or 0)
        chosen = it.logits([row], edits, options=plain)[0].argmax(-1).tolist()
        if ended and chosen[-1] in ends:
            tokens.append(chosen[-1])
        require(chosen == tokens, f"decoding gives {tokens}, a whole forward {chosen}")
