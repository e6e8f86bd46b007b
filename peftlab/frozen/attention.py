"""The attention site: rows attend to their owner's prefix, shared segment, past and themselves.

Registered with transformers as an attention function of its own, so masks, windows and caches are
ours. Legend: H heads, Hkv key/value heads, hd head size, N packed tokens, T tokens of one row,
S keys that the row sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from peftlab.edits import KeysValues
from peftlab.frozen.batch import GivenPast, Past, Segment
from peftlab.frozen.dot_product import Rule, attend_row, dot_product_attention
from peftlab.frozen.forward import ForwardContext, current_forward
from peftlab.frozen.steps import Step, StepPlan, attend_step

NAME = "peftlab"


class Captured(Exception):
    """Leaves a model's forward with the keys and values [Hkv, N, hd] that reached attention."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,  # noqa: ARG001 - transformers passes it
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Packed rows: query [1, H, N, hd], key and value [1, Hkv, N, hd] -> [1, N, H, hd].

    `dropout` is zero always, since the base runs in eval mode.
    """
    context = current_forward()
    if context is None:
        raise RuntimeError("the frozen model was called directly; call FrozenLM with a Batch")
    if context.to_attention:
        raise Captured(key.squeeze(0), value.squeeze(0))
    # squeeze and not [0], whose backward would fill zeros and copy.
    q, k, v = query.squeeze(0), key.squeeze(0), value.squeeze(0)
    if context.narrowed and context.captured is not None:
        k, v = context.captured
    block: int = module.layer_idx  # type: ignore[assignment]
    if context.options.collect:
        context.collected[block] = (k, v)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = Rule(scale, sliding_window, softcap, s_aux)
    attend = _attend_cached if context.batch.is_cached else _attend_packed
    out = attend(context, block, q, k, v, rule)
    return _add_gated(context, block, q, out, scale).transpose(0, 1).unsqueeze(0), None


def no_mask(*_: Any, **__: Any) -> None:
    """transformers' mask function: the attention function knows its rows and needs no mask."""


def register() -> None:
    """Tell transformers of our attention under the name `peftlab`."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, no_mask)


def _attend_packed(
    context: ForwardContext,
    block: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rule: Rule,
) -> torch.Tensor:
    batch = context.batch
    runs = [stop - start for own in context.running.queries for start, stop, _ in own]
    pieces = zip(
        context.segment_queries(), _cut(k, batch.lengths), _cut(v, batch.lengths), strict=True
    )
    own_queries = iter(_cut(q, runs))
    out, common_k, common_v = [], k[:, :0], v[:, :0]
    for (segment, queries), own_k, own_v in pieces:
        before = _before(context, block, segment, k)
        if segment.shared is not None:
            before.append((common_k, common_v))
        else:
            common_k, common_v = own_k, own_v
        if not queries:
            continue
        keys = torch.cat([*(pair[0] for pair in before), own_k], -2) if before else own_k
        values = torch.cat([*(pair[1] for pair in before), own_v], -2) if before else own_v
        for _, _, seen in queries:
            after = keys.shape[-2] - segment.length + seen  # what comes from there on is not seen
            pair = (
                (keys, values) if seen == segment.length else (keys[:, :after], values[:, :after])
            )
            out.append(attend_row(context.masks, next(own_queries), *pair, rule))
    return _joined(out)


def _before(
    context: ForwardContext, block: int, segment: Segment, like: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values that stand before a segment: given ones, and its owner's prefix."""
    edits = context.batch.owners[segment.owner]
    prefix = _plain(edits.attention.get(block, ()))
    before = list[tuple[torch.Tensor, torch.Tensor]]()
    position = 0  # of the prefix
    if isinstance(segment.past, GivenPast):
        keys, values = segment.past.keys_values[block]
        before.append((keys.to(like), values.to(like)))
        position = segment.past.length
    for edit in prefix:
        keys = edit.keys
        if edits.begin == "cue":
            assert context.rotary is not None
            keys = context.rotary.turned(block, keys, position)
            position += keys.shape[-2]
        before.append((keys.to(like), edit.values.to(like)))
    return before


def _cut(x: torch.Tensor, counts: Sequence[int]) -> list[torch.Tensor]:
    """[H, N, hd] cut into rows [H, T, hd].

    split has one backward node for all rows; slicing each row would zero-fill N tokens a row.
    """
    return [row.transpose(0, 1) for row in x.transpose(0, 1).split(counts)]


def _joined(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows [H, T, hd] as one [H, N, hd].

    Tokens come first in memory, here and in `_cut`: so projections and the attention kernels lay
    out values and gradients, and joining them moves whole rows and transposes nothing.
    """
    if len(rows) == 1:
        return rows[0]
    return torch.cat([row.transpose(0, 1) for row in rows]).transpose(0, 1)


def _attend_cached(
    context: ForwardContext,
    block: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rule: Rule,
) -> torch.Tensor:
    """Write every row's new keys and values into its slot, then attend to the slot."""
    cache, masks, running = context.options.cache, context.masks, context.running
    assert cache is not None
    out, steps = torch.empty_like(q), list[Step]()
    for segment, queries in context.segment_queries():
        past = segment.past
        assert isinstance(past, Past)
        if segment.length == 1 and queries:
            steps.append((segment.start, queries[0][0], past))
            continue
        own = slice(segment.start, segment.stop)
        cache.write(block, past.slot, past.length, k[:, own], v[:, own])
        for start, stop, seen in queries:
            keys, values = cache.read(block, past.slot, 1, past.length + seen)
            out[:, start:stop] = attend_row(masks, q[:, start:stop], keys[0], values[0], rule)
    if steps:
        if running.step_plan is None:
            running.step_plan = StepPlan.make(steps, q.device, 2 * k.shape[0] * k.shape[-1])
        attend_step(cache, masks, block, running.step_plan, q, k, v, rule, out)
    return out


def _plain(edits: tuple[KeysValues, ...]) -> list[KeysValues]:
    return [edit for edit in edits if edit.gate is None]


def _add_gated(
    context: ForwardContext, block: int, q: torch.Tensor, out: torch.Tensor, scale: float
) -> torch.Tensor:
    """Add gate · softmax(q kᵀ) v of the owners' gated keys and values; q and out [H, N, hd]."""
    owners, running = context.batch.owners, context.running
    gated = [
        (owner, edit)
        for owner in running.spans
        for edit in owners[owner].attention.get(block, ())
        if edit.gate is not None
    ]
    few, many = context.divide(gated)
    if len({owner for owner, _ in few}) < len(few):
        few, many = [], gated  # an owner with two gates composed: one after the other
    if few:
        assert context.options.bank is not None
        out = context.options.bank.gated(running.placements, block, few, q, out, scale)
    pieces, at = list[torch.Tensor](), 0
    for owner, edits in groupby(many, key=lambda pair: pair[0]):
        start, stop = running.spans[owner]
        piece, own = out[:, start:stop], q[None, :, start:stop]
        for _, edit in edits:
            assert edit.gate is not None
            keys, values = edit.keys.to(q)[None], edit.values.to(q)[None]
            extra = dot_product_attention(own, keys, values, None, False, Rule(scale))
            piece = piece + edit.gate.to(q).view(-1, 1, 1) * extra.squeeze(0)
        pieces += [out[:, at:start], piece]
        at = stop
    return torch.cat([*pieces, out[:, at:]], -2) if pieces else out
