"""The attention site: rows attend to their owner's prefix, shared segment, past and themselves.

Registered with transformers as an attention function of its own, so masks, windows and caches are
ours. Legend: H heads, Hkv key/value heads, hd head size, N packed tokens, T tokens of one row,
S keys that the row sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from peftlab.edits import KeysValues
from peftlab.frozen.batch import Batch, Segment, current_batch

NAME = "peftlab"


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
        raise Captured(key[0], value[0])
    k, v = (key[0], value[0]) if not batch.narrowed else batch.captured or (key[0], value[0])
    block: int = module.layer_idx  # type: ignore[assignment]
    if batch.collected is not None:
        batch.collected[block] = (k, v)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = _Rule(scale, sliding_window, softcap, s_aux)
    attend = _attend_packed if batch.cache is None else _attend_cached
    out = attend(batch, block, query[0], k, v, rule)
    return _add_gated(batch, block, query[0], out, scale).transpose(0, 1).unsqueeze(0), None


def no_mask(*_: Any, **__: Any) -> None:
    """transformers' mask function: the attention function knows its rows and needs no mask."""


def register() -> None:
    """Tell transformers of our attention under the name `peftlab`."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, no_mask)


def _attend_packed(
    batch: Batch, block: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: _Rule
) -> torch.Tensor:
    # split has one backward node for all rows; slicing each row would zero-fill N tokens a row.
    queries = [s.kept for s in batch.segments] if batch.narrowed else batch.lengths
    pieces = zip(
        batch.segments,
        q.split(queries, -2),
        k.split(batch.lengths, -2),
        v.split(batch.lengths, -2),
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
    return torch.cat(out, -2) if len(out) > 1 else out[0]


def _attend_cached(
    batch: Batch, block: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: _Rule
) -> torch.Tensor:
    """Write every row's new keys and values into its slot, then attend to the slot."""
    cache = batch.cache
    assert cache is not None
    steps = [segment for segment in batch.segments if segment.length == 1]
    out = torch.empty_like(q)
    if steps:
        plan = batch.step_plan or _StepPlan.make(steps, q.device)
        batch.step_plan = plan
        out[:, plan.tokens] = _step(batch, block, plan, q, k, v, rule)
    for segment in batch.segments:
        if segment.length > 1:
            own = slice(segment.start, segment.start + segment.length)
            cache.write(block, segment.slot, segment.past, k[:, own], v[:, own])
            keys, values = cache.read(block, segment.slot, 1, segment.past + segment.length)
            out[:, own] = _row(batch, q[:, own], keys[0], values[0], rule)
    return out


@dataclass(frozen=True)
class _StepPlan:
    """Rows that have one new token each, in the order of their slots; made once for all blocks.

    Slots between the first and the last that have no such row are attended to and thrown away: the
    cache is then read in place, and callers keep their slots side by side.
    """

    tokens: torch.Tensor  # [R], where the rows' tokens lie in the pack
    slots: torch.Tensor  # [R]
    past: torch.Tensor  # [R]
    first: int
    span: int
    longest: int

    @classmethod
    def make(cls, steps: list[Segment], device: torch.device) -> _StepPlan:
        ordered = sorted(steps, key=lambda segment: segment.slot)
        first, last = ordered[0].slot, ordered[-1].slot
        columns = [[s.start for s in ordered], [s.slot for s in ordered], [s.past for s in ordered]]
        tokens, slots, past = torch.tensor(columns, device=device)
        longest = max(segment.past for segment in ordered) + 1
        return cls(tokens, slots, past, first, last - first + 1, longest)


def _step(
    batch: Batch,
    block: int,
    plan: _StepPlan,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rule: _Rule,
) -> torch.Tensor:
    """One new token for each of R rows: q [H, N, hd], k and v [Hkv, N, hd] -> [H, R, hd]."""
    cache = batch.cache
    assert cache is not None
    cache.write_step(block, plan.slots, plan.past, k[:, plan.tokens], v[:, plan.tokens])
    keys, values = cache.read(block, plan.first, plan.span, plan.longest)
    key = (0, plan.longest, rule.window)
    if key not in batch.masks:
        place = torch.arange(plan.longest, device=q.device)
        past = plan.past.new_zeros(plan.span).index_copy(0, plan.slots - plan.first, plan.past)
        seen = place <= past[:, None]
        if rule.window is not None:
            seen &= place > past[:, None] - rule.window
        batch.masks[key] = seen[:, None, None]
    queries = q.new_zeros(plan.span, q.shape[0], 1, q.shape[-1])
    queries[plan.slots - plan.first, :, 0] = q[:, plan.tokens].transpose(0, 1)
    out = _scores(queries, keys, values, batch.masks[key], False, rule)
    return out[plan.slots - plan.first, :, 0].transpose(0, 1)


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
    return _scores(q[None], k[None], v[None], mask, causal, rule)[0]


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
    pieces, changed = [], False
    for owner, (start, stop) in batch.running_spans.items():
        piece = out[:, start:stop]
        for edit in batch.owners[owner].attention.get(block, ()):
            if edit.gate is not None:
                rule = _Rule(scale)
                own = q[None, :, start:stop]
                extra = _scores(
                    own, edit.keys.to(q)[None], edit.values.to(q)[None], None, False, rule
                )
                piece = piece + edit.gate.to(q).view(-1, 1, 1) * extra[0]
                changed = True
        pieces.append(piece)
    return torch.cat(pieces, -2) if changed else out
