"""The records of a folder, and what cannot be read there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab.compare.folders import METRICS, PREDICTIONS
from peftlab.compare.record import NAME, Record
from peftlab.errors import InputError


@dataclass(frozen=True)
class Found:
    """The records under a folder, with their folders, and a sentence for each that is unusable."""

    records: list[Record]
    folders: list[Path]
    problems: list[str]


def read(out: Path) -> Found:
    """Every `record.json` under a folder, oldest path name first; damaged ones are named, left out.

    Raises:
        InputError: no such folder, or no record in it.
    """
    if not out.is_dir():
        raise InputError(f"there is no folder {out}; give the --out of a comparison")
    found = Found([], [], [])
    for path in sorted(out.rglob(NAME), key=lambda path: (path.stat().st_mtime, str(path))):
        try:
            found.records.append(Record.read(path))
            found.folders.append(path.parent)
        except InputError as error:
            found.problems.append(f"left out: {error}")
    if not found.records:
        said = f" ({'; '.join(found.problems)})" if found.problems else ""
        raise InputError(f"{out} holds no record of a run{said}; give the --out of a comparison")
    return found


def predictions(folder: Path) -> list[dict[str, Any]]:
    """The test examples of a run: source, references, prediction, scores, losses."""
    return _lines(folder / PREDICTIONS)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """What training logged, in order: step with loss and rate, or with validation loss."""
    return _lines(folder / METRICS)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged: {error}") from error
