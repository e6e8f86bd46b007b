"""Studies: the figures of the literature, each of them one command, on any base and task.

A study is a named list of variants; their runs are those of a comparison (same budget, seeds,
decoding, records) and are not made twice. Runs → panels of points with intervals → `study.json`,
a figure, a table, a page, and sentences that are computed from the numbers.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import InputError, nearest

if TYPE_CHECKING:
    from peftlab.study.base import Study

_FOLDER = Path(__file__).parent / "studies"


def lines() -> dict[str, str]:
    """Every study with a line about it: the files of `studies`, and the start of what they say."""
    return {
        file.stem: (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")
        .partition("\n")[0]
        .partition("  ")[0]
        .rstrip(".")
        for file in sorted(_FOLDER.glob("[!_]*.py"))
    }


def find(name: str) -> Study:
    """The study of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    if name not in (known := lines()):
        raise InputError(
            f"there is no study {name!r}; there are {', '.join(known)}.{nearest(name, known)}"
        )
    study: Study = import_module(f"peftlab.study.studies.{name}").STUDY
    return study
