"""What a forward is given: rows packed end to end, sorted by owner, with the owners' edits.

Every owner's rows are one contiguous slice [start, stop) of the N packed tokens, so an edit is a
slice and no padding enters a matmul. What the rows of an owner have in common at their start (a
soft prompt, an instruction) is packed once as a shared segment that those rows attend to: it does
not depend on what follows it, so this is exact.

How a batch is run, and what is remembered while it runs, lie in `forward`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from peftlab.edits import Bottleneck, Edits, LinearEdit, Sublayer

Span = tuple[int, int]  # half-open range of tokens
Given = TypeVar("Given")


class Past(NamedTuple):
    """What a row continues: the first `length` positions of a slot of the cache."""

    slot: int
    length: int


class GivenPast(NamedTuple):
    """What a row continues: `length` tokens' keys and values by block, each [Hkv, length, hd].

    They are the bare base's and bring no gradients; its owner's prefix comes after them.
    """

    length: int
    keys_values: Sequence[tuple[torch.Tensor, torch.Tensor]]


class Segment(NamedTuple):
    """A run of packed tokens that attends to itself, and to its past, or else to its owner's
    prefix and to `shared`.

    Attributes:
        position: of its first token in its row.
        spans: the packed tokens whose logits are asked for, in order.
        shared: the packed tokens that its row has in common with others.
        past: the keys and values that it continues; in a cache a prefix and a common start lie
            among them.
    """

    start: int
    length: int
    owner: int
    position: int
    spans: tuple[Span, ...] = ()
    shared: Span | None = None
    past: Past | GivenPast | None = None

    @property
    def stop(self) -> int:
        """Where the next segment starts."""
        return self.start + self.length

    @property
    def kept(self) -> int:
        """How many logits are asked for."""
        return sum(stop - start for start, stop in self.spans)


@dataclass(frozen=True)
class SiteEdits:
    """Which owners of a batch bring what, in the order of their rows.

    Attributes:
        linear: by the linear's path. sublayer: by block and sublayer. weights: by parameter name.
    """

    linear: Mapping[str, Sequence[tuple[int, LinearEdit]]]
    sublayer: Mapping[tuple[int, Sublayer], Sequence[tuple[int, Bottleneck]]]
    weights: Mapping[str, Sequence[tuple[int, torch.Tensor]]]

    @classmethod
    def of(cls, owners: Sequence[Edits], present: Iterable[int]) -> SiteEdits:
        """Of those owners that have rows."""
        linear: dict[str, list[tuple[int, LinearEdit]]] = defaultdict(list)
        sublayer: dict[tuple[int, Sublayer], list[tuple[int, Bottleneck]]] = defaultdict(list)
        weights: dict[str, list[tuple[int, torch.Tensor]]] = defaultdict(list)
        for owner in present:
            edits = owners[owner]
            for path, change in edits.linear.items():
                linear[path].append((owner, change))
            for place, bottleneck in edits.sublayer.items():
                sublayer[place].append((owner, bottleneck))
            for name, tensor in edits.weights.items():
                weights[name].append((owner, tensor))
        return cls(linear, sublayer, weights)


@dataclass(frozen=True)
class Batch:
    """Packed rows with their owners' edits: what `pack` makes and `FrozenLM` takes.

    Attributes:
        ids: [N], negative for pseudo tokens. positions: [N].
        keep: [K], the packed tokens whose logits are asked for, in packed order.
        segments: all that is packed. rows: those of them that are a row's own.
        order: `order[i]` is the index, among the rows given to `pack`, of the i-th of `rows`.
        owners: the edits that segments name. sites: theirs, by the site that wants them.
        spans, kept_spans: each owner's slice of the N tokens and of the K kept ones.
        prompted: the owners whose rows have pseudo tokens.
        dropout_keys: [N], a number for each token that dropout masks hang on; None: its place here.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    keep: torch.Tensor
    segments: Sequence[Segment]
    rows: Sequence[Segment]
    order: Sequence[int]
    owners: Sequence[Edits]
    sites: SiteEdits
    spans: Mapping[int, Span]
    kept_spans: Mapping[int, Span]
    prompted: frozenset[int] = frozenset()
    dropout_keys: torch.Tensor | None = None

    @property
    def lengths(self) -> list[int]:
        """How many packed tokens each segment has."""
        return [segment.length for segment in self.segments]

    @property
    def is_cached(self) -> bool:
        """Whether its rows go on from slots of a cache; all do, or none."""
        return isinstance(self.rows[0].past, Past)

    @property
    def tokens(self) -> int:
        """How many tokens its rows have: those that are packed, and those that were given."""
        given = (row.past.length for row in self.rows if isinstance(row.past, GivenPast))
        return len(self.ids) + sum(given)

    def split_kept(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Cut [K, …] into one tensor a row, in the order in which the rows were given to `pack`."""
        return self._as_given(values.split([row.kept for row in self.rows]))

    def given_segments(self) -> list[Segment]:
        """Each row's segment, in the order given to `pack`."""
        return self._as_given(self.rows)

    def _as_given(self, pieces: Sequence[Given]) -> list[Given]:
        given = list(pieces)
        for row, piece in zip(self.order, pieces, strict=True):
            given[row] = piece
        return given
