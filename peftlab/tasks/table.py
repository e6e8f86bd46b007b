"""Rows as a file or a data set gives them, before they are anybody's source or target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Unusable:
    """What stands for a value that cannot be read; it matters only where the column is used.

    reason: continues "the column …": `stands twice`.
    """

    reason: str


@dataclass(frozen=True)
class Table:
    """Rows of one split.

    lines: the line of each row in a text file. names: the columns, where the source declares them.
    classes: by column, the names that its integers stand for (`ClassLabel` of `datasets`).
    notes: what reading has decided, a sentence each.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    lines: Sequence[int] | None = None
    names: Sequence[str] | None = None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def place(self, index: int) -> str:
        """Name row `index` in a message: `train.jsonl, line 7`."""
        if self.lines is None:
            return f"{self.name}, row {index + 1}"
        return f"{self.name}, line {self.lines[index]}"

    def narrowed(self, paths: Iterable[str]) -> Table:
        """The same without the columns that no path leads into, where rows lie in a data set.

        What is not read costs no time, and need not be readable.
        """
        heads = {path if path in self.columns else path.partition(".")[0] for path in paths}
        if not hasattr(self.rows, "select_columns") or not heads <= set(self.columns):
            return self
        return replace(self, rows=self.rows.select_columns(sorted(heads)), names=sorted(heads))

    def previewed(self, count: int | None) -> Table:
        """The first so many of its rows, and a note that says so; None: all."""
        if count is None or len(self.rows) < count:  # nothing is left out
            return self
        said = f"A preview: of {self.name} no more than {count:,} rows are read."
        some = range(min(count, len(self.rows)))
        select = getattr(self.rows, "select", None)
        rows = self.rows[: len(some)] if select is None else select(some)
        return replace(self, rows=rows, notes=(*self.notes, said))

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in the order in which they first occur."""
        if self.names is not None:
            return list(self.names)
        return list(dict.fromkeys(name for row in self.rows for name in row))


def previewed(tables: Mapping[str, Table], count: int | None) -> dict[str, Table]:
    """The first so many rows of each, with a note that says so; None: all."""
    return {split: table.previewed(count) for split, table in tables.items()}
