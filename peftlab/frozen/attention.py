"""The attention site: rows attend to their owner's prefix, shared segment, past and themselves.

Registered with transformers as an attention function of its own, so masks, windows and caches are
ours. Legend: H heads, Hkv key/value heads, hd head size, N packed tokens, T tokens of one row,
S keys that the row sees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from peftlab.edits import KeysValues
from peftlab.frozen.batch import Batch, Segment, current_batch

NAME = "peftlab"
# How many numbers a device reads from memory while it starts one more attention call.
_CALL_NUMBERS = defaultdict(lambda: 10_000_000, cpu=50_000)


class Captured(Exception):
    """Leaves a model's forward with the keys and values [Hkv, N, hd] that reached attention."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values


@dataclass(frozen=True)
class _Rule:
    """How one layer scores: scale, sliding window, soft-cap and attention sinks [H]."""

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


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
    rule = _Rule(scale, sliding_window, softcap, s_aux)
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
    batch: Batch, block: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: _Rule
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
        out.append(_row(batch, own_q, keys, values, rule))
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
    batch: Batch, block: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: _Rule
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
            out[:, start:stop] = _row(batch, q[:, start:stop], keys[0], values[0], rule)
    if steps:
        if batch.narrowed not in batch.step_plans:
            width = 2 * k.shape[0] * k.shape[-1]
            batch.step_plans[batch.narrowed] = _StepPlan.make(steps, q.device, width)
        _step(batch, block, batch.step_plans[batch.narrowed], q, k, v, rule, out)
    return out


@dataclass(frozen=True)
class _Run:
    """Rows with one new token each whose slots lie side by side and are attended to together.

    Slots between them that have no such row are attended to and thrown away, and short rows are
    padded to the longest: the cache is read in place.
    """

    tokens: torch.Tensor  # [R], where the rows' tokens lie in the pack
    queries: torch.Tensor  # [R], where they lie among those that the block runs on
    slots: torch.Tensor  # [R]
    past: torch.Tensor  # [R]
    start: int  # of the first row's query
    first: int
    span: int
    longest: int
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)  # by window

    @classmethod
    def make(cls, rows: list[tuple[Segment, int]], device: torch.device) -> _Run:
        """Of segments, in the order of their slots, and where their queries lie."""
        columns = [(s.start, query, s.slot, s.past) for s, query in rows]
        tokens, queries, slots, past = torch.tensor(columns, device=device).T.contiguous()
        first, longest = rows[0][0].slot, max(segment.past for segment, _ in rows) + 1
        span = rows[-1][0].slot - first + 1
        return cls(tokens, queries, slots, past, rows[0][1], first, span, longest)


@dataclass(frozen=True)
class _StepPlan:
    """All rows that have one new token each, and the runs they are attended to in.

    Made once a step for all blocks.
    """

    whole: _Run
    runs: list[_Run]

    @classmethod
    def make(cls, steps: list[tuple[Segment, int]], device: torch.device, width: int) -> _StepPlan:
        ordered = sorted(steps, key=lambda step: step[0].slot)
        overhead = _CALL_NUMBERS[device.type] // width
        whole = _Run.make(ordered, device)
        groups = _runs(ordered, overhead)
        return cls(whole, [whole] if len(groups) == 1 else [_Run.make(g, device) for g in groups])


def _runs(ordered: list[tuple[Segment, int]], overhead: int) -> list[list[tuple[Segment, int]]]:
    """Cut rows in the order of their slots where padding would cost more than another call.

    Args:
        overhead: what a call costs besides, in positions that could be read meanwhile.
    """
    groups, span, longest = [[ordered[0]]], 1, ordered[0][0].past + 1
    for step in ordered[1:]:
        own = step[0].past + 1
        wider, deeper = step[0].slot - groups[-1][0][0].slot + 1, max(longest, own)
        if wider * deeper <= span * longest + own + overhead:
            groups[-1].append(step)
            span, longest = wider, deeper
        else:
            groups.append([step])
            span, longest = 1, own
    return groups


def _step(
    batch: Batch,
    block: int,
    plan: _StepPlan,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rule: _Rule,
    out: torch.Tensor,
) -> None:
    """One new token for each of R rows: k and v [Hkv, N, hd], of q's rows into those of out."""
    cache, whole = batch.cache, plan.whole
    assert cache is not None
    cache.write_step(block, whole.slots, whole.past, k[:, whole.tokens], v[:, whole.tokens])
    for run in plan.runs:
        keys, values = cache.read(block, run.first, run.span, run.longest)
        if len(run.tokens) == 1:
            own = slice(run.start, run.start + 1)
            out[:, own] = _row(batch, q[:, own], keys[0], values[0], rule)
            continue
        queries = q.new_zeros(run.span, q.shape[0], 1, q.shape[-1])
        places = run.slots - run.first
        queries[places, :, 0] = q[:, run.queries].transpose(0, 1)
        found = _scores(queries, keys, values, _seen(run, rule.window), False, rule)
        out[:, run.queries] = found[places, :, 0].transpose(0, 1)


def _seen(run: _Run, window: int | None) -> torch.Tensor:
    """[span, 1, 1, longest] bool: the positions that each slot's row has, `window` back."""
    if window not in run.masks:
        place = torch.arange(run.longest, device=run.past.device)
        past = run.past.new_zeros(run.span).index_copy(0, run.slots - run.first, run.past)
        seen = place <= past[:, None]
        if window is not None:
            seen &= place > past[:, None] - window
        run.masks[window] = seen[:, None, None]
    return run.masks[window]


def _row(
    batch: Batch, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: _Rule
) -> torch.Tensor:
    """One row's T queries at the end of its S keys: q [H, T, hd], k and v [Hkv, S, hd]."""
    queries, seen = q.shape[-2], k.shape[-2]
    window = rule.window if rule.window is not None and rule.window < seen else None
    if queries == 1 and window is not None:
        k, v, seen, window = k[:, -window:], v[:, -window:], window, None
    causal = queries == seen and window is None
    mask = None if causal or queries == 1 else _visible(batch, queries, seen, window, q.device)
    return _scores(q[None], k[None], v[None], mask, causal, rule).squeeze(0)


def _visible(
    batch: Batch, queries: int, seen: int, window: int | None, device: torch.device
) -> torch.Tensor:
    """[T, S] bool: query i stands at key S−T+i, sees what is not after it, `window` keys back."""
    key = (queries, seen, window)
    if key not in batch.masks:
        mask = torch.ones(queries, seen, dtype=torch.bool, device=device).tril(seen - queries)
        if window is not None:
            mask = mask.triu(seen - queries - window + 1)
        batch.masks[key] = mask
    return batch.masks[key]


def _scores(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    rule: _Rule,
) -> torch.Tensor:
    """q [B, H, T, hd], k and v [B, Hkv, S, hd] -> [B, H, T, hd]."""
    if rule.softcap is None and rule.sinks is None:
        return scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal and q.shape[-2] > 1, scale=rule.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.transpose(-1, -2)) * rule.scale
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if rule.sinks is not None:
        sinks = rule.sinks.to(scores).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    return weights[..., : k.shape[-2]] @ v


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
            extra = _scores(own, keys, values, None, False, _Rule(scale))
            piece = piece + edit.gate.to(q).view(-1, 1, 1) * extra.squeeze(0)
        pieces += [out[:, at:start], piece]
        at = stop
    return torch.cat([*pieces, out[:, at:]], -2) if pieces else out
