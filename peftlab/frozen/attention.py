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
from peftlab.frozen.batch import Batch, Segment, current_batch
from peftlab.frozen.dot_product import Rule, attend_row, dot_product_attention
from peftlab.frozen.steps import StepPlan, attend_step

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
    batch = current_batch()
    if batch is None:
        raise RuntimeError("the frozen model was called directly; call FrozenLM with a Batch")
    if batch.stop_at_attention:
        raise Captured(key.squeeze(0), value.squeeze(0))
    # squeeze and not [0], whose backward would fill zeros and copy.
    q, k, v = query.squeeze(0), key.squeeze(0), value.squeeze(0)
    if batch.narrowed and batch.captured is not None:
        k, v = batch.captured
    block: int = module.layer_idx  # type: ignore[assignment]
    if batch.collected is not None:
        batch.collected[block] = (k, v)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = Rule(scale, sliding_window, softcap, s_aux)
    attend = _attend_packed if batch.cache is None else _attend_cached
    out = attend(batch, block, q, k, v, rule)
    return _add_gated(batch, block, q, out, scale).transpose(0, 1).unsqueeze(0), None


def no_mask(*_: Any, **__: Any) -> None:
    """transformers' mask function: the attention function knows its rows and needs no mask."""


def register() -> None:
    """Tell transformers of our attention under the name `peftlab`."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, no_mask)


def _attend_packed(
    batch: Batch, block: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: Rule
) -> torch.Tensor:
    queries = [s.kept for s in batch.segments] if batch.narrowed else batch.lengths
    pieces = zip(
        batch.segments,
        _cut(q, queries),
        _cut(k, batch.lengths),
        _cut(v, batch.lengths),
        strict=True,
    )
    out, common_k, common_v = [], k[:, :0], v[:, :0]
    for segment, own_q, own_k, own_v in pieces:
        prefix = _plain(batch.owners[segment.owner].attention.get(block, ()))
        before = [(edit.keys.to(k), edit.values.to(v)) for edit in prefix]
        if segment.shared is not None:
            before.append((common_k, common_v))
        else:
            common_k, common_v = own_k, own_v
        if own_q.shape[-2] == 0:
            continue
        keys = torch.cat([*(pair[0] for pair in before), own_k], -2) if before else own_k
        values = torch.cat([*(pair[1] for pair in before), own_v], -2) if before else own_v
        out.append(attend_row(batch, own_q, keys, values, rule))
    return _joined(out)


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
    batch: Batch, block: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: Rule
) -> torch.Tensor:
    """Write every row's new keys and values into its slot, then attend to the slot."""
    cache = batch.cache
    assert cache is not None
    out, steps = torch.empty_like(q), list[tuple[Segment, int]]()
    for segment, start, stop in batch.query_spans():
        if segment.length == 1 and stop > start:
            steps.append((segment, start))
            continue
        own = slice(segment.start, segment.start + segment.length)
        cache.write(block, segment.slot, segment.past, k[:, own], v[:, own])
        if stop > start:
            keys, values = cache.read(block, segment.slot, 1, segment.past + segment.length)
            out[:, start:stop] = attend_row(batch, q[:, start:stop], keys[0], values[0], rule)
    if steps:
        if batch.narrowed not in batch.step_plans:
            width = 2 * k.shape[0] * k.shape[-1]
            batch.step_plans[batch.narrowed] = StepPlan.make(steps, q.device, width)
        attend_step(batch, block, batch.step_plans[batch.narrowed], q, k, v, rule, out)
    return out


def _plain(edits: tuple[KeysValues, ...]) -> list[KeysValues]:
    return [edit for edit in edits if edit.gate is None]


def _add_gated(
    batch: Batch, block: int, q: torch.Tensor, out: torch.Tensor, scale: float
) -> torch.Tensor:
    """Add gate · softmax(q kᵀ) v of the owners' gated keys and values; q and out [H, N, hd]."""
    gated = [
        (owner, edit)
        for owner in batch.running_spans
        for edit in batch.owners[owner].attention.get(block, ())
        if edit.gate is not None
    ]
    few, many = batch.divide(gated)
    if len({owner for owner, _ in few}) < len(few):
        few, many = [], gated  # an owner with two gates composed: one after the other
    if few:
        assert batch.bank is not None
        out = batch.bank.gated(batch, block, few, q, out, scale)
    pieces, at = list[torch.Tensor](), 0
    for owner, edits in groupby(many, key=lambda pair: pair[0]):
        start, stop = batch.running_spans[owner]
        piece, own = out[:, start:stop], q[None, :, start:stop]
        for _, edit in edits:
            assert edit.gate is not None
            keys, values = edit.keys.to(q)[None], edit.values.to(q)[None]
            extra = dot_product_attention(own, keys, values, None, False, Rule(scale))
            piece = piece + edit.gate.to(q).view(-1, 1, 1) * extra.squeeze(0)
        pieces += [out[:, at:start], piece]
        at = stop
    return torch.cat([*pieces, out[:, at:]], -2) if pieces else out
