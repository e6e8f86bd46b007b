"""Rows that stay in their table until they are asked for, and the pairs of a split.

A data set of the hub is a memory-mapped file, and a large file stays one; CNN/DailyMail as Python
objects would take 1.3 GB. What is kept of a row here are sixteen bytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar, overload

from peftlab.tasks.example import Example
from peftlab.tasks.hashes import Groups, distinct, recurring
from peftlab.tasks.progress import shown
from peftlab.tasks.table import Table

Item = TypeVar("Item")
Reader = Callable[[int, Any], Example | None]
"""Makes an example of a table's row and its number; None leaves the row out."""
_APART = 8  # a table of more rows than this for each that is wanted is not read from end to end


class StoredRows(Sequence[Example]):
    """The examples of a table, made anew at each access; every row is checked once at the start.

    numbers: the table's row of each example. targets: how many targets it has. sources: a hash of
    what it asks, for this process only.
    """

    def __init__(self, table: Table, read: Reader) -> None:
        self._table, self._read = table, read
        self.numbers, self.targets, self.sources = array("I"), array("I"), array("q")
        whole = len(table.rows)
        for number, row in enumerate(shown(table.rows, f"checking {table.name}", whole)):
            example = read(number, row)
            if example is not None:
                self.numbers.append(number)
                self.targets.append(len(example.targets))
                self.sources.append(hash(example.asked))

    @property
    def left_out(self) -> int:
        """How many rows of the table are not among these."""
        return len(self._table.rows) - len(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> StoredRows: ...
    def __getitem__(self, index: int | slice) -> Example | StoredRows:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        return self._example(self.numbers[index], self._table.rows[self.numbers[index]])

    def __iter__(self) -> Iterator[Example]:
        if _APART * len(self) < len(self._table.rows):
            yield from (self[i] for i in range(len(self)))
            return
        # In the table's own order a data set reads whole batches; one by one is ten times slower.
        wanted = iter(self.numbers)
        next_one = next(wanted, None)
        for number, row in enumerate(self._table.rows):
            if number == next_one:
                yield self._example(number, row)
                next_one = next(wanted, None)

    def _example(self, number: int, row: Mapping[str, Any]) -> Example:
        example = self._read(number, row)
        assert example is not None  # it was not left out at the start
        return example

    def take(self, places: Iterable[int]) -> StoredRows:
        """Return the examples at `places`, which ascend, without reading them."""
        part, chosen = self._like(self._read), array("Q", places)
        part.numbers = array("I", (self.numbers[i] for i in chosen))
        part.targets = array("I", (self.targets[i] for i in chosen))
        part.sources = array("q", (self.sources[i] for i in chosen))
        return part

    def changed(self, change: Callable[[Example], Example]) -> StoredRows:
        """Return the examples as `change` makes them, their sources and numbers of targets kept."""
        part = self._like(_Changed(self._read, change))
        part.numbers, part.targets, part.sources = self.numbers, self.targets, self.sources
        return part

    def gathered(self, groups: Groups, join: Callable[[Sequence[Example]], Example]) -> StoredRows:
        """Return one example of every group of these, without reading them."""
        part = self._like(_Join(join))
        part._table = Table(self._table.name, _Gathered(self, groups))
        part.numbers = array("I", range(len(groups)))
        part.targets = array("I", (sum(self.targets[i] for i in group) for group in groups))
        part.sources = array("q", (self.sources[group[0]] for group in groups))
        return part

    def _like(self, read: Reader) -> StoredRows:
        part = object.__new__(StoredRows)
        part._table, part._read = self._table, read
        return part


@dataclass(frozen=True)
class _Changed:
    read: Reader
    change: Callable[[Example], Example]

    def __call__(self, number: int, row: Any) -> Example | None:
        example = self.read(number, row)
        return None if example is None else self.change(example)


@dataclass(frozen=True)
class _Join:
    join: Callable[[Sequence[Example]], Example]

    def __call__(self, _: int, same: Sequence[Example]) -> Example:
        return self.join(same)


class _Gathered(Sequence[Any]):
    """The members of each group, as the rows of a table."""

    def __init__(self, rows: Sequence[Example], groups: Groups) -> None:
        self._rows, self._groups = rows, groups

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: Any) -> list[Example]:
        return [self._rows[place] for place in self._groups[range(len(self))[index]]]


def grouped(
    rows: Sequence[Example], join: Callable[[Sequence[Example]], Example]
) -> Sequence[Example]:
    """Return the examples with those of the same source and fields joined, in their first order."""
    keys = array("q", source_hashes(rows))
    doubtful = recurring(keys)
    if not len(doubtful):
        return rows
    for place in doubtful:
        row = rows[place]
        keys[place] = hash((row.asked, *sorted(row.fields.items())))
    groups = Groups(keys)
    if isinstance(rows, StoredRows):
        return rows.gathered(groups, join)
    return [join([rows[place] for place in group]) for group in groups]


def take(rows: Sequence[Example], places: Iterable[int]) -> Sequence[Example]:
    """Return the rows at `places`, which ascend."""
    return rows.take(places) if isinstance(rows, StoredRows) else [rows[i] for i in places]


def with_pairs(rows: Sequence[Example], chosen: Iterable[int]) -> Sequence[Example]:
    """Return the examples of these pairs, by their numbers, with the targets of these alone."""
    pairs, left = Pairs(rows), dict[int, list[str]]()
    if pairs.are_rows:
        return take(rows, chosen)
    for number in chosen:
        row, target = pairs.place(number)
        left.setdefault(row, []).append(rows[row].targets[target])
    return [replace(rows[row], targets=tuple(targets)) for row, targets in left.items()]


def spaced(pairs: Sequence[Item], most: int) -> Sequence[Item]:
    """Return about `most` of them, evenly spaced; all where there are no more."""
    return pairs[:: max(1, -(-len(pairs) // most))]


def source_hashes(rows: Sequence[Example]) -> Sequence[int]:
    """Return a hash of each source, for this process only."""
    return rows.sources if isinstance(rows, StoredRows) else [hash(row.asked) for row in rows]


class Pairs(Sequence[tuple[Example, str]]):
    """Every (example, target) of some rows: a row with several targets gives several pairs.

    are_rows: each row has one target, so that pairs are numbered as rows are.
    """

    def __init__(self, rows: Sequence[Example]) -> None:
        self._rows = rows
        stored = rows.targets if isinstance(rows, StoredRows) else None
        counts = stored if stored is not None else (len(row.targets) for row in rows)
        ends = array("Q", accumulate(counts))
        self.are_rows = bool(ends) and ends[-1] == len(ends) == ends[0] + len(ends) - 1
        self._ends: Sequence[int] = range(1, len(ends) + 1) if self.are_rows else ends

    @property
    def sources(self) -> int:
        """How many different sources they have."""
        return len(distinct(source_hashes(self._rows)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def place(self, index: int) -> tuple[int, int]:
        """Return the row of pair `index`, and which of the row's targets it has."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = bisect_right(self._ends, index)
        return row, index - (self._ends[row - 1] if row else 0)

    @overload
    def __getitem__(self, index: int) -> tuple[Example, str]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Example, str]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Example, str] | list[tuple[Example, str]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, target = self.place(index + len(self) if index < 0 else index)
        example = self._rows[row]
        return example, example.targets[target]

    def __iter__(self) -> Iterator[tuple[Example, str]]:
        return ((row, target) for row in self._rows for target in row.targets)
