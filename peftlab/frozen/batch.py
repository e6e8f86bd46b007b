"""A batch: rows packed end to end, sorted by owner, each with its owner's edits.

Every owner's rows are one contiguous slice [start, stop) of the N packed tokens, so an edit is a
slice and no padding enters a matmul. What the rows of an owner have in common at their start (a
soft prompt, an instruction) is packed once as a shared segment that those rows attend to: it does
not depend on what follows it, so this is exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from peftlab.edits import Bottleneck, Edits, LinearEdit, Sublayer
from peftlab.errors import InputError

if TYPE_CHECKING:
    from peftlab.frozen.bank import Bank
    from peftlab.frozen.cache import KeyValueCache

# A shared segment costs its rows a masked attention; below this many saved tokens it does not pay.
_WORTH_SHARING = 8
# Above this share of kept tokens the last block runs on all of them.
_FEW_KEPT = 0.6
# Owners with at most so many tokens are worth padding to the same number.
_FEW_TOKENS = 8

Given = TypeVar("Given")
Wanted = TypeVar("Wanted", bound=tuple[int, Any])  # an owner and what it wants at a site

_current: ContextVar[Batch | None] = ContextVar("peftlab_batch", default=None)


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


@dataclass(frozen=True)
class Segment:
    """A run of packed tokens that attends to itself, to its owner's prefix and to `shared`.

    Its last `kept` tokens are those whose logits are asked for.
    """

    start: int
    length: int
    owner: int
    position: int
    shared: tuple[int, int] | None = None
    kept: int = 0
    slot: int = 0
    past: int = 0


@dataclass
class Batch:
    """Packed rows with their owners' edits: what `FrozenLM` takes and what the sites read.

    Attributes:
        ids: [N], negative for pseudo tokens. positions: [N].
        keep: [K], the packed tokens whose logits are asked for, in packed order.
        order: `order[i]` is the index, among the rows given to `pack`, of the i-th packed row.
        kept: how many logits each packed row keeps.
        spans, kept_spans: each owner's slice of the N tokens and of the K kept ones.
        prompted: the owners whose rows have pseudo tokens.
        cache: keys and values of earlier tokens, written and read by the attention site.
        checkpoint: recompute every block in backward instead of keeping its activations.
        fast: allow what gives the same numbers sooner: the last block at the kept tokens only, and
            fused activations. False shows the difference.
        narrowed: the last block is running on the kept tokens; `captured` then holds the keys and
            values [H_kv, N, hd] of all tokens.
        resume: (block k, its input [1, N, D]); the blocks below k are skipped.
        keep_input_of: the block whose input is wanted; it is put into `kept_input`.
        collected: where not None, every block's own keys and values [H_kv, N, hd] are put here.
        stop_at_attention: the first attention call leaves the forward with its keys and values.
        stop_after_keeping: leave the forward as soon as `kept_input` is there.
        by_hand: the caller has gathered the sharded parameters that this batch needs.
        attention_input: (block, [1, N, D]) that the block's attention module gets for its input.
        bank: stacks the edits of owners with few tokens; needs a cache, and brings no gradients.
        few, few_kept: those owners, by their tokens and by their kept tokens.
        placements, step_plans: notes of the bank and of the attention site, made once a batch.
        tokens: [N], a number for each token that dropout masks hang on; by default its place here.
        masks: masks of rows that do not see themselves causally alone, shared by all blocks.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: list[Segment]
    keep: torch.Tensor
    order: list[int]
    kept: list[int]
    owners: Sequence[Edits]
    spans: dict[int, tuple[int, int]]
    kept_spans: dict[int, tuple[int, int]]
    prompted: set[int] = field(default_factory=set)
    cache: KeyValueCache | None = None
    checkpoint: bool = False
    fast: bool = True
    narrowed: bool = False
    captured: tuple[torch.Tensor, torch.Tensor] | None = None
    resume: tuple[int, torch.Tensor] | None = None
    keep_input_of: int | None = None
    kept_input: torch.Tensor | None = None
    collected: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None
    stop_at_attention: bool = False
    stop_after_keeping: bool = False
    by_hand: bool = False
    attention_input: tuple[int, torch.Tensor] | None = None
    bank: Bank | None = None
    few: frozenset[int] = field(init=False, default=frozenset())
    few_kept: frozenset[int] = field(init=False, default=frozenset())
    placements: dict[Any, Any] = field(default_factory=dict)
    step_plans: dict[bool, Any] = field(default_factory=dict)
    tokens: torch.Tensor | None = None
    masks: dict[tuple[int, int, int | None], torch.Tensor] = field(default_factory=dict)
    linear: dict[str, list[tuple[int, LinearEdit]]] = field(init=False)
    sublayer: dict[tuple[int, Sublayer], list[tuple[int, Bottleneck]]] = field(init=False)
    weights: dict[str, list[tuple[int, torch.Tensor]]] = field(init=False)

    @property
    def lengths(self) -> list[int]:
        """How many packed tokens each segment has."""
        return [segment.length for segment in self.segments]

    @property
    def running_tokens(self) -> torch.Tensor:
        """The numbers of the tokens that the blocks are running on."""
        tokens = self.tokens
        if tokens is None:
            tokens = torch.arange(len(self.ids), device=self.ids.device)
        return tokens[self.keep] if self.narrowed else tokens

    @property
    def running_spans(self) -> dict[int, tuple[int, int]]:
        """Each owner's slice of the tokens that the blocks are running on."""
        return self.kept_spans if self.narrowed else self.spans

    @property
    def narrows(self) -> bool:
        """Whether the last block is worth running on the kept tokens only.

        Its keys and values are needed everywhere, a quarter of a block's work; where most tokens
        are kept, two passes cost more than one.
        """
        few = len(self.keep) < _FEW_KEPT * len(self.ids)
        return self.fast and few and len(self.keep) > 0 and self.collected is None

    def __post_init__(self) -> None:
        self.linear, self.sublayer, self.weights = (
            defaultdict(list),
            defaultdict(list),
            defaultdict(list),
        )
        for owner in self.spans:
            edits = self.owners[owner]
            for path, linear in edits.linear.items():
                self.linear[path].append((owner, linear))
            for place, bottleneck in edits.sublayer.items():
                self.sublayer[place].append((owner, bottleneck))
            for name, tensor in edits.weights.items():
                self.weights[name].append((owner, tensor))
        if self.bank is not None and self.cache is not None:
            self.few, self.few_kept = _few(self.spans), _few(self.kept_spans)

    def divide(self, wanted: Sequence[Wanted]) -> tuple[list[Wanted], list[Wanted]]:
        """What owners want at a site: of those that the bank takes together, and of the others."""
        together = self.few_kept if self.narrowed else self.few
        if not together or torch.is_grad_enabled():
            return [], list(wanted)
        few = [pair for pair in wanted if pair[0] in together]
        if len(few) < 2:
            return [], list(wanted)
        return few, [pair for pair in wanted if pair[0] not in together]

    def query_spans(self) -> Iterator[tuple[Segment, int, int]]:
        """Each segment with the slice of the running tokens that are its own."""
        at = 0
        for segment in self.segments:
            count = segment.kept if self.narrowed else segment.length
            yield segment, at, at + count
            at += count

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the batch that the sites read. Nests, and is restored on the way out."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def split_kept(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Cut [K, …] into one tensor a row, in the order in which the rows were given to `pack`."""
        return self._as_given(list(values.split(self.kept)))

    def given_segments(self) -> list[Segment]:
        """Each row's segment, in the order given to `pack`; with a cache, so none is shared."""
        assert self.cache is not None
        return self._as_given(self.segments)

    def _as_given(self, pieces: list[Given]) -> list[Given]:
        given = list(pieces)
        for row, piece in zip(self.order, pieces, strict=True):
            given[row] = piece
        return given


def current_batch() -> Batch | None:
    """The batch of the forward that is running in this thread, if any."""
    return _current.get()


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


def _few(spans: dict[int, tuple[int, int]]) -> frozenset[int]:
    """The owners with some tokens, but so few that padding them costs less than a loop."""
    return frozenset(o for o, (start, stop) in spans.items() if 0 < stop - start <= _FEW_TOKENS)


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
