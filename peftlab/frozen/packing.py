"""Packing: rows sorted by owner and laid end to end, what an owner's rows have in common once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.batch import Batch, GivenPast, Past, Segment, SiteEdits, Span

# A shared segment costs its rows a masked attention; below this many saved tokens it does not pay.
_WORTH_SHARING = 8


class Row(NamedTuple):
    """One row: token ids (pseudo token j is −(j+1)), whose edits it wants, which logits it wants.

    Logits are returned for the tokens from index `keep` on (negative counts from the end), or for
    those of its ranges.
    A row with a `past` goes on where that ends; one in a cache needs the cache to run. Tokens
    before index `begin` are the bare base's, whoever the owner is: they have to be made such a past
    before the row is packed, see `pasts.continued`.
    """

    ids: Sequence[int]
    owner: int = 0
    keep: int | tuple[Span, ...] = -1
    past: Past | GivenPast | None = None
    begin: int = 0

    @property
    def keep_from(self) -> int:
        """The first token whose logits are wanted; as many as there are where none is."""
        return self.spans[0][0] if self.spans else len(self.ids)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The tokens whose logits are wanted, in order; all that packing knows of them."""
        if isinstance(self.keep, tuple):
            return self.keep
        size = len(self.ids)
        first = self.keep if self.keep >= 0 else size + self.keep
        return ((first, size),) if first < size else ()


def pack(
    rows: Sequence[Row],
    owners: Sequence[Edits],
    *,
    device: torch.device | str = "cpu",
    share: bool = True,
    places: Sequence[int] | None = None,
    alike: int | None = None,
) -> Batch:
    """Sort rows by owner and lay them end to end.

    Args:
        rows: at least one; none empty. All have a past of one kind, or none: what rows have in
            common at their start then lies in it already, so nothing is shared.
        owners: the edits that `Row.owner` indexes.
        share: pack what an owner's rows have in common at their start once.
        places: where the rows stand in a whole of which these are a part, for
            `Batch.dropout_keys`.
        alike: how many first tokens all rows of that whole have in common; no more are shared.

    Raises:
        InputError: no rows, an empty row, rows with a past among others, rows whose beginning has
            not been read, or a pseudo token that its owner has no vector for.
    """
    if not rows:
        raise InputError("a batch needs at least one row; got none")
    if any(edits.experts for edits in owners):
        raise InputError(
            "a mixture is several adaptations, each with rows of its own, and no single one: it can"
            " be generated with, evaluated, served and converted, and nothing else"
        )
    continued = sum(row.past is not None for row in rows)
    if continued not in (0, len(rows)) or len({type(row.past) for row in rows}) > 1:
        raise InputError(
            f"{continued} of {len(rows)} rows continue a past; all rows of a batch do, or none"
        )
    packer = _Packer(owners, share and not continued, alike)
    order = sorted(range(len(rows)), key=lambda i: rows[i].owner)
    for owner, group in groupby(order, key=lambda i: rows[i].owner):
        packer.add(owner, [rows[i] for i in group])
    dropout_keys = None
    if places is not None:
        numbers = _numbers(packer.segments, owners, [places[i] for i in order], alike or 0)
        dropout_keys = torch.tensor(numbers, device=device)
    return Batch(
        ids=torch.tensor(packer.ids, device=device),
        positions=torch.tensor(packer.positions, device=device),
        keep=torch.tensor(packer.keep, dtype=torch.long, device=device),
        segments=packer.segments,
        rows=packer.rows,
        order=order,
        owners=owners,
        sites=SiteEdits.of(owners, packer.spans),
        spans=packer.spans,
        kept_spans=packer.kept_spans,
        prompted=frozenset(packer.prompted),
        dropout_keys=dropout_keys,
    )


class _Packer:
    """Lays rows end to end, owner by owner."""

    def __init__(self, owners: Sequence[Edits], share: bool, alike: int | None) -> None:
        self.owners, self.share, self.alike = owners, share, alike
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.keep: list[int] = []
        self.segments: list[Segment] = []
        self.rows: list[Segment] = []
        self.spans: dict[int, Span] = {}
        self.kept_spans: dict[int, Span] = {}
        self.prompted: set[int] = set()

    def add(self, owner: int, rows: list[Row]) -> None:
        """All rows of one owner, after those of the owners before it."""
        start, kept_start = len(self.ids), len(self.keep)
        in_cache = isinstance(rows[0].past, Past)
        prefix = 0 if in_cache else self.owners[owner].prefix_length
        lead = _common_lead(rows, self.alike) if self.share else 0
        shared = None
        if lead:
            shared = (start, start + lead)
            self._segment(rows[0].ids[:lead], Segment(start, lead, owner, prefix))
        for row in rows:
            self._check(row)
            own, offset = row.ids[lead:], len(self.ids) - lead
            spans = tuple((offset + first, offset + stop) for first, stop in row.spans)
            for span in spans:
                self.keep += range(*span)
            position = prefix + lead + (0 if row.past is None else row.past.length)
            place = (len(self.ids), len(own), owner, position)
            self.rows.append(Segment(*place, spans, shared, row.past))
            self._segment(own, self.rows[-1])
        self.spans[owner] = (start, len(self.ids))
        self.kept_spans[owner] = (kept_start, len(self.keep))

    def _segment(self, ids: Sequence[int], segment: Segment) -> None:
        self.segments.append(segment)
        self.ids += ids
        self.positions += range(segment.position, segment.position + segment.length)

    def _check(self, row: Row) -> None:
        if not row.ids:
            raise InputError("a row of the batch is empty: every row needs at least one token")
        if row.begin:
            raise InputError(
                f"a row begins at its token {row.begin}, and what comes before has not been read"
            )
        vectors = self.owners[row.owner].embeddings
        have, lowest = 0 if vectors is None else len(vectors), min(row.ids)
        if -lowest > have:
            raise InputError(
                f"the row's text has pseudo token {-lowest}, but its adaptation brings {have} "
                "vectors"
            )
        if lowest < 0:
            self.prompted.add(row.owner)


def _numbers(
    segments: Sequence[Segment], owners: Sequence[Edits], places: Sequence[int], alike: int
) -> list[int]:
    """A number for every packed token: its position in its row, and the row's place beyond that."""
    shared = {segment.shared for segment in segments}
    numbers: list[int] = []
    rows = iter(places)
    for segment in segments:
        first = segment.position - owners[segment.owner].prefix_length
        is_lead = (segment.start, segment.stop) in shared
        row = 0 if is_lead else (next(rows) + 1) << 32
        reached = range(first, first + segment.length)
        numbers += [at if at < alike else row + at for at in reached]
    return numbers


def _common_lead(rows: list[Row], most: int | None) -> int:
    """How many tokens all rows share at their start, if packing them once saves enough."""
    limit = min(min([len(row.ids) - 1, *(first for first, _ in row.spans)]) for row in rows)
    limit = limit if most is None else min(limit, most)
    first = rows[0].ids
    lead = next((i for i in range(limit) if any(row.ids[i] != first[i] for row in rows)), limit)
    return lead if lead * (len(rows) - 1) >= _WORTH_SHARING else 0
