"""The formats that a report can have."""

from __future__ import annotations

from collections.abc import Sequence

from peftlab.errors import InputError, nearest
from peftlab.records.record import Record
from peftlab.report.latex import as_latex
from peftlab.report.table import as_csv, as_json, as_markdown

FORMATS = ("table", "json", "csv", "md", "latex", "html")
_MAKERS = {"json": as_json, "csv": as_csv, "md": as_markdown, "latex": as_latex}


def render(records: Sequence[Record], format: str) -> str:
    """The table as json (whole records), csv (one line a run), md or latex.

    Raises:
        InputError: another format.
    """
    if format not in _MAKERS:
        raise InputError(
            f"there is no format {format!r}; there are {', '.join(FORMATS)}."
            f"{nearest(format, FORMATS)}"
        )
    return _MAKERS[format](records)
