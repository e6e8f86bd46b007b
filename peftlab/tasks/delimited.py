"""Rows from csv and tsv files, each with the line that it came from."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from peftlab.errors import InputError
from peftlab.tasks.file_rows import Record, table_of
from peftlab.tasks.opened import Line, first_lines, text_lines
from peftlab.tasks.table import Table, Unusable

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_LONGEST = 1 << 30  # characters of a cell, which csv wants to know beforehand


def read_csv(path: Path, first: int | None = None) -> Table:
    """Rows of a file whose cells are separated by commas; no more than `first`."""
    return _read(path, ",", first)


def read_tsv(path: Path, first: int | None = None) -> Table:
    """Rows of a file whose cells are separated by tabs; no more than `first`."""
    return _read(path, "\t", first)


def _read(path: Path, usual: str, first: int | None) -> Table:
    separator = _separator("".join(first_lines(path, 1)), usual)
    header = next((cells for _, _, cells in _cells_of(path, separator, text_lines(path))), [])
    said = f"The cells of {path} are separated by {_SEPARATORS[separator]}."
    form = _Delimited(path, separator, tuple(header))
    return table_of(path, form, first, () if separator == usual else (said,))


@dataclass(frozen=True)
class _Delimited:
    """Cells under a header, see `file_rows.Format`."""

    path: Path
    separator: str
    header: tuple[str, ...]

    def records(self, lines: Iterable[Line]) -> Iterator[Record]:
        for start, number, cells in islice(_cells_of(self.path, self.separator, lines), 1, None):
            yield Record(start, number, self._row(cells, f"{self.path}, line {number}"))

    def row(self, text: str, place: str) -> dict[str, Any]:
        return self._row(_cells(text, self.separator), place)

    def _row(self, cells: list[str], place: str) -> dict[str, Any]:
        header = self.header
        if len(cells) != len(header):
            raise InputError(
                f"{place} has {len(cells)} cells; the header has {len(header)} "
                f"({', '.join(header)}). Put text that holds the separator in double quotes."
            )
        row: dict[str, Any] = dict(zip(header, cells, strict=True))
        if len(row) < len(header):  # no cell may stand for a column that is there twice
            for name, count in Counter(header).items():
                if count > 1:
                    row[name] = Unusable("stands twice in the header")
        return row


def _cells_of(
    path: Path, separator: str, lines: Iterable[Line]
) -> Iterator[tuple[int, int, list[str]]]:
    """Every row's first byte, its first line and its cells, the header's first.

    Raises:
        InputError: quotes that do not close, and the like.
    """
    read = _Read()
    reader = _reader(read.texts(lines), separator)
    start, number = 0, 1
    try:
        for cells in reader:
            if cells:
                yield start, number, cells
            start, number = read.bytes, reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {number} cannot be read: {error}.") from error


@dataclass
class _Read:
    """How many bytes of a file were read."""

    bytes: int = 0

    def texts(self, lines: Iterable[Line]) -> Iterator[str]:
        """Its lines, those that end in a carriage return alone among them."""
        for _, _, stop, text in lines:
            alone = "\r" in text.rstrip("\r\n")
            left = len(text.encode("utf-8")) if alone else 0
            for part in io.StringIO(text, newline="") if alone else (text,):
                left -= len(part.encode("utf-8")) if alone else 0
                self.bytes = stop - left
                yield part


def _separator(text: str, usual: str) -> str:
    """The usual one, unless it leaves the header one cell and another cuts it up."""
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    widths = {sign: len(_cells(header, sign)) for sign in (usual, *_SEPARATORS)}
    return usual if widths[usual] > 1 else max(widths, key=lambda sign: widths[sign])


def _cells(text: str, separator: str) -> list[str]:
    """The cells of a row; it may have several lines."""
    reader = _reader(io.StringIO(text, newline=""), separator, strict=False)
    return next(filter(None, reader), [])


def _reader(lines: Iterable[str], separator: str, strict: bool = True) -> Any:
    """A reader that takes cells of any length, also in a process that has read no file yet."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    return csv.reader(lines, delimiter=separator, strict=strict)
