"""Carry an experiment out.

`experiment.json` is written after every part: an interrupted experiment shows what it has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peftlab.comparison.run import Watcher, compare
from peftlab.errors import InputError
from peftlab.experiments.grid import Part
from peftlab.experiments.kept import FILE, Cell, Experiment, read
from peftlab.experiments.spec import ExperimentSpec
from peftlab.files import read_json, write_json
from peftlab.records.reading import StoredRun


def run(
    spec: ExperimentSpec,
    parts: list[Part],
    out: Path,
    watcher: Callable[[Part, Path], Watcher],
    described: dict[str, Any] | None = None,
) -> Experiment:
    """Make every run of every part in `out`; runs that are finished there are not made again.

    Args:
        watcher: makes what watches a part, in its folder.
        described: what else `experiment.json` tells (the command).

    Raises:
        InputError: a plan that cannot work, or a folder of another experiment.
        DiskFull, Stopped: what is finished is kept, and the same call continues.
    """
    _claim(out, spec)
    values = {
        "experiment": spec.model_dump(mode="json"),
        "models": list(dict.fromkeys(part.model for part in parts)),
        "tasks": list(dict.fromkeys(part.task for part in parts)),
        **(described or {}),
    }
    asked = {(part.model, part.task, row) for part in parts for row in part.rows}
    cells = [cell for cell in _known(out) if cell.place in asked]  # of an interrupted call
    for part in parts:
        folder = out / part.folder
        compared = compare(part.plan, folder, watcher(part, folder), described)
        made = {(part.model, part.task, row) for row in part.rows}
        cells = [cell for cell in cells if cell.place not in made]
        cells += [_cell(part, kept, out) for kept in compared.runs]
        write_json(out / FILE, {**values, "cells": [vars(cell) for cell in cells]})
    return read(out)


def _known(out: Path) -> list[Cell]:
    return list(read(out).records) if (out / FILE).exists() else []


def _claim(out: Path, spec: ExperimentSpec) -> None:
    path = out / FILE
    if path.exists():
        other = read_json(path).get("experiment", {}).get("name")
        if other != spec.name:
            raise InputError(f"{out} holds the experiment {other}: choose another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out} already exists and is not the folder of an experiment: choose another --out"
        )


def _cell(part: Part, kept: StoredRun, out: Path) -> Cell:
    labels = [method.label for method in part.plan.methods]
    row = part.rows[labels.index(kept.record.label)]
    return Cell(part.model, part.task, row, kept.folder.relative_to(out).as_posix())
