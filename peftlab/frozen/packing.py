"""Packing: rows sorted by owner and laid end to end, what an owner's rows have in common once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.batch import Batch, Segment

if TYPE_CHECKING:
    from peftlab.frozen.bank import Bank
    from peftlab.frozen.cache import KeyValueCache

# A shared segment costs its rows a masked attention; below this many saved tokens it does not pay.
_WORTH_SHARING = 8


@dataclass(frozen=True)
class Row:
    """One row: token ids (pseudo token j is −(j+1)), whose edits it wants, which logits it wants.

    Logits are returned for the tokens from index `keep_from` on (negative counts from the end).
    With a cache, `slot` is the row's place in it and `past` how many positions lie there already.
    """

    ids: Sequence[int]
    owner: int = 0
    keep_from: int = -1
    slot: int = 0
    past: int = 0


def pack(
    rows: Sequence[Row],
    owners: Sequence[Edits],
    *,
    device: torch.device | str = "cpu",
    share: bool = True,
    cache: KeyValueCache | None = None,
    bank: Bank | None = None,
    checkpoint: bool = False,
    fast: bool = True,
    places: Sequence[int] | None = None,
    alike: int | None = None,
) -> Batch:
    """Sort rows by owner and lay them end to end.

    Args:
        rows: at least one; none empty.
        owners: the edits that `Row.owner` indexes.
        share: pack what an owner's rows have in common at their start once.
        cache: with one, rows continue at `Row.past` in their slot and nothing is shared (prefixes
            and common starts are already in the slots).
        bank, checkpoint, fast: see `Batch`.
        places: where the rows stand in a whole of which these are a part, for `Batch.tokens`.
        alike: how many first tokens all rows of that whole have in common; no more are shared.

    Raises:
        InputError: no rows, an empty row, or a pseudo token that its owner has no vector for.
    """
    packer = _Packer(owners, share and cache is None, cache is not None, alike)
    order = sorted(range(len(rows)), key=lambda i: rows[i].owner)
    for owner, group in groupby(order, key=lambda i: rows[i].owner):
        packer.add(owner, [rows[i] for i in group])
    if not rows:
        raise InputError("a batch needs at least one row; got none")
    tokens = None
    if places is not None:
        numbers = _numbers(packer.segments, owners, [places[i] for i in order], alike or 0)
        tokens = torch.tensor(numbers, device=device)
    return Batch(
        tokens=tokens,
        ids=torch.tensor(packer.ids, device=device),
        positions=torch.tensor(packer.positions, device=device),
        segments=packer.segments,
        keep=torch.tensor(packer.keep, dtype=torch.long, device=device),
        order=order,
        kept=packer.kept,
        owners=owners,
        spans=packer.spans,
        kept_spans=packer.kept_spans,
        prompted=packer.prompted,
        cache=cache,
        bank=bank,
        checkpoint=checkpoint,
        fast=fast,
    )


class _Packer:
    """Lays rows end to end, owner by owner."""

    def __init__(
        self, owners: Sequence[Edits], share: bool, cached: bool, alike: int | None
    ) -> None:
        self.owners, self.share, self.cached, self.alike = owners, share, cached, alike
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.keep: list[int] = []
        self.kept: list[int] = []
        self.segments: list[Segment] = []
        self.spans: dict[int, tuple[int, int]] = {}
        self.kept_spans: dict[int, tuple[int, int]] = {}
        self.prompted: set[int] = set()

    def add(self, owner: int, rows: list[Row]) -> None:
        """All rows of one owner, after those of the owners before it."""
        start, kept_start = len(self.ids), len(self.keep)
        prefix = 0 if self.cached else self.owners[owner].prefix_length
        lead = _common_lead(rows, self.alike) if self.share else 0
        shared = None
        if lead:
            shared = (start, start + lead)
            self._segment(rows[0].ids[:lead], Segment(start, lead, owner, prefix))
        for row in rows:
            self._check(row)
            first = _first_kept(row)
            self.kept.append(len(row.ids) - first)
            offset = len(self.ids) - lead
            self.keep += range(offset + first, offset + len(row.ids))
            position = row.past if self.cached else prefix + lead
            own = row.ids[lead:]
            place = (len(self.ids), len(own), owner, position, shared, self.kept[-1])
            self._segment(own, Segment(*place, row.slot, row.past))
        self.spans[owner] = (start, len(self.ids))
        self.kept_spans[owner] = (kept_start, len(self.keep))

    def _segment(self, ids: Sequence[int], segment: Segment) -> None:
        self.segments.append(segment)
        self.ids += ids
        self.positions += range(segment.position, segment.position + segment.length)

    def _check(self, row: Row) -> None:
        if not row.ids:
            raise InputError("a row of the batch is empty: every row needs at least one token")
        vectors = self.owners[row.owner].embeddings
        have, lowest = 0 if vectors is None else len(vectors), min(row.ids)
        if -lowest > have:
            raise InputError(
                f"the row's text has pseudo token {-lowest}, but its adaptation brings {have} "
                "vectors"
            )
        if lowest < 0:
            self.prompted.add(row.owner)


def _first_kept(row: Row) -> int:
    return row.keep_from if row.keep_from >= 0 else len(row.ids) + row.keep_from


def _numbers(
    segments: Sequence[Segment], owners: Sequence[Edits], places: Sequence[int], alike: int
) -> list[int]:
    """A number for every packed token: its position in its row, and the row's place beyond that."""
    shared = {segment.shared for segment in segments}
    numbers: list[int] = []
    rows = iter(places)
    for segment in segments:
        first = segment.position - owners[segment.owner].prefix_length
        is_lead = (segment.start, segment.start + segment.length) in shared
        row = 0 if is_lead else (next(rows) + 1) << 32
        reached = range(first, first + segment.length)
        numbers += [at if at < alike else row + at for at in reached]
    return numbers


def _common_lead(rows: list[Row], most: int | None) -> int:
    """How many tokens all rows share at their start, if packing them once saves enough."""
    limit = min(min(len(row.ids) - 1, _first_kept(row)) for row in rows)
    limit = limit if most is None else min(limit, most)
    first = rows[0].ids
    lead = next((i for i in range(limit) if any(row.ids[i] != first[i] for row in rows)), limit)
    return lead if lead * (len(rows) - 1) >= _WORTH_SHARING else 0
