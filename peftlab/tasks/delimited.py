"""Rows from csv and tsv files, each with the line that it came from."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

from peftlab.errors import InputError
from peftlab.tasks.opened import text_of
from peftlab.tasks.table import Table, Unusable

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


def read_csv(path: Path) -> Table:
    """Rows of a file whose cells are separated by commas."""
    return _read(path, ",")


def read_tsv(path: Path) -> Table:
    """Rows of a file whose cells are separated by tabs."""
    return _read(path, "\t")


def _read(path: Path, usual: str) -> Table:
    text = text_of(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    separator = _separator(text, usual)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            if header is None:
                header = cells
            elif cells:
                rows.append(_row(header, cells, f"{path}, line {start}"))
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {start} cannot be read: {error}.") from error
    _mark_doubles(header or [], rows)
    said = f"The cells of {path} are separated by {_SEPARATORS[separator]}."
    return Table(str(path), rows, lines, notes=() if separator == usual else (said,))


def _separator(text: str, usual: str) -> str:
    """The usual one, unless it leaves the header one cell and another cuts it up."""
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    widths = {sign: len(_cells(header, sign)) for sign in (usual, *_SEPARATORS)}
    return usual if widths[usual] > 1 else max(widths, key=lambda sign: widths[sign])


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _row(header: list[str], cells: list[str], place: str) -> dict[str, Any]:
    if len(cells) != len(header):
        raise InputError(
            f"{place} has {len(cells)} cells; the header has {len(header)} ({', '.join(header)}). "
            "Put text that holds the separator in double quotes."
        )
    return dict(zip(header, cells, strict=True))


def _mark_doubles(header: list[str], rows: list[dict[str, Any]]) -> None:
    """Let no cell stand for a column whose name the header has twice."""
    for name, count in Counter(header).items():
        if count > 1:
            rows[:] = [{**row, name: Unusable("stands twice in the header")} for row in rows]
