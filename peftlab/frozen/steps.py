"""Rows that decode: one new token each, attended to together.

Legend: R rows, H heads, Hkv key/value heads, hd head size, N packed tokens.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch

from peftlab.frozen.batch import Past
from peftlab.frozen.cache import KeyValueCache
from peftlab.frozen.dot_product import Masks, Rule, attend_row, dot_product_attention

# Where a row's new token lies in the pack, and its query among the running tokens; its past.
Step = tuple[int, int, Past]
# How many numbers a device reads from memory while it starts one more attention call.
_CALL_NUMBERS = defaultdict(lambda: 10_000_000, cpu=50_000)


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
    def make(cls, rows: list[Step], device: torch.device) -> _Run:
        """Of steps in the order of their slots."""
        columns = [(token, query, *past) for token, query, past in rows]
        tokens, queries, slots, past = torch.tensor(columns, device=device).T.contiguous()
        (_, start, begin), (_, _, end) = rows[0], rows[-1]
        longest = max(past.length for _, _, past in rows) + 1
        span = end.slot - begin.slot + 1
        return cls(tokens, queries, slots, past, start, begin.slot, span, longest)


@dataclass(frozen=True)
class StepPlan:
    """All rows that have one new token each, and the runs they are attended to in.

    Made once a step for all blocks.
    """

    whole: _Run
    runs: list[_Run]

    @classmethod
    def make(cls, steps: list[Step], device: torch.device, width: int) -> StepPlan:
        """Of at least one step; width: numbers of a position's key and value."""
        ordered = sorted(steps, key=lambda step: step[2].slot)
        overhead = _CALL_NUMBERS[device.type] // width
        whole = _Run.make(ordered, device)
        groups = _runs(ordered, overhead)
        return cls(whole, [whole] if len(groups) == 1 else [_Run.make(g, device) for g in groups])


def _runs(ordered: list[Step], overhead: int) -> list[list[Step]]:
    """Cut rows in the order of their slots where padding would cost more than another call.

    Args:
        overhead: what a call costs besides, in positions that could be read meanwhile.
    """
    groups, span, longest = [[ordered[0]]], 1, ordered[0][2].length + 1
    for step in ordered[1:]:
        own = step[2].length + 1
        wider, deeper = step[2].slot - groups[-1][0][2].slot + 1, max(longest, own)
        if wider * deeper <= span * longest + own + overhead:
            groups[-1].append(step)
            span, longest = wider, deeper
        else:
            groups.append([step])
            span, longest = 1, own
    return groups


def attend_step(
    cache: KeyValueCache,
    masks: Masks,
    block: int,
    plan: StepPlan,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rule: Rule,
    out: torch.Tensor,
) -> None:
    """One new token for each of R rows: k and v [Hkv, N, hd], of q's rows into those of out."""
    whole = plan.whole
    cache.write_step(block, whole.slots, whole.past, k[:, whole.tokens], v[:, whole.tokens])
    for run in plan.runs:
        keys, values = cache.read(block, run.first, run.span, run.longest)
        if len(run.tokens) == 1:
            own = slice(run.start, run.start + 1)
            out[:, own] = attend_row(masks, q[:, own], keys[0], values[0], rule)
            continue
        queries = q.new_zeros(run.span, q.shape[0], 1, q.shape[-1])
        places = run.slots - run.first
        queries[places, :, 0] = q[:, run.queries].transpose(0, 1)
        attended = dot_product_attention(
            queries, keys, values, _seen(run, rule.window), False, rule
        )
        out[:, run.queries] = attended[places, :, 0].transpose(0, 1)


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
