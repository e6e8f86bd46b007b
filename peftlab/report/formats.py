"""The formats that a report can have."""

from __future__ import annotations

from collections.abc import Sequence

from peftlab.errors import InputError, nearest
from peftlab.records.record import Record
from peftlab.report.latex import as_latex
from peftlab.report.table import as_csv, as_json, as_markdown

FORMATS = ("table", "json", "csv", "md", "latex", "html")
_WHOLE = {"json": as_json, "csv": as_csv}
_TABLES = {"md": as_markdown, "latex": as_latex}


def render(records: Sequence[Record], format: str, columns: str = "usual") -> str:
    """The table as json (whole records), csv (one line a run), md or latex.

    Args:
        columns: of md and latex, see `figures.chosen`; the others have all.

    Raises:
        InputError: another format, or a column that does not exist.
    """
    if format in _WHOLE:
        check_columns(format, columns)
        return _WHOLE[format](records)
    if format not in _TABLES:
        raise InputError(
            f"there is no format {format!r}; there are {', '.join(FORMATS)}."
            f"{nearest(format, FORMATS)}"
        )
    return _TABLES[format](records, columns)


def check_columns(format: str, columns: str) -> None:
    """Refuse to choose columns of what has all of them.

    Raises:
        InputError: other columns than the usual ones are asked for.
    """
    if columns != "usual":
        raise InputError(f"--columns {columns}: {format} holds everything; leave --columns out")
