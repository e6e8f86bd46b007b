"""The records of a folder, what lies beside them, and what cannot be read there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic takes typing's own from Python 3.12 on

from peftlab.errors import InputError
from peftlab.files import found
from peftlab.records.folders import METRICS, PREDICTIONS
from peftlab.records.record import NAME, Record


@with_config(ConfigDict(extra="allow"))
class Prediction(TypedDict):
    """A test example of a run. loss_sums, loss_tokens: nats and target tokens by reference."""

    index: int
    prediction: str
    references: list[str]
    source: NotRequired[str]
    scores: NotRequired[dict[str, float]]
    loss_sums: NotRequired[list[float]]
    loss_tokens: NotRequired[list[int]]


@with_config(ConfigDict(extra="allow"))
class Logged(TypedDict):
    """What training logged of a step: its loss and rate, or its validation loss."""

    step: int
    loss: NotRequired[float]
    lr: NotRequired[float]
    validation_loss: NotRequired[float]


_Row = TypeVar("_Row")
_PREDICTIONS: TypeAdapter[Prediction] = TypeAdapter(Prediction)
_METRICS: TypeAdapter[Logged] = TypeAdapter(Logged)


def predictions(folder: Path) -> list[Prediction]:
    """The test examples of a run by their index; none where there is no file.

    Raises:
        InputError: damaged; says in which line.
    """
    rows = _rows(folder / PREDICTIONS, _PREDICTIONS, "prediction with references")
    return sorted(rows, key=lambda row: row["index"])


def metrics(folder: Path) -> list[Logged]:
    """What training logged, in order; nothing where there is no file.

    A last line without its end is none: its writer was killed.

    Raises:
        InputError: damaged; says in which line.
    """
    return _rows(folder / METRICS, _METRICS, "step with numbers", appended=True)


def _rows(path: Path, kind: TypeAdapter[_Row], what: str, *, appended: bool = False) -> list[_Row]:
    """One JSON value a line; lines end at \\n alone, since texts may hold other line ends."""
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    rows = []
    for number, line in enumerate(lines[:-1] if appended else lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(kind.validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = "".join(f"{part}: " for part in map(str, first["loc"]))
            raise InputError(
                f"{path} is damaged: line {number} is no {what} ({place}{first['msg']})"
            ) from error
    return rows


@dataclass(frozen=True)
class StoredRun:
    """A record, and the folder of its run."""

    record: Record
    folder: Path


@dataclass(frozen=True)
class StoredRuns:
    """The records of runs under a folder, and a sentence for each that is unusable.

    Trials of a search are no runs: what came of them stands in the records of their method's runs.
    """

    runs: list[StoredRun]
    problems: list[str]

    @property
    def records(self) -> list[Record]:
        """The records alone."""
        return [run.record for run in self.runs]


def read(out: Path) -> StoredRuns:
    """Every `record.json` under a folder, oldest path name first; damaged ones are named, left out.

    Raises:
        InputError: no such folder, or no record in it.
    """
    if not out.is_dir():
        raise InputError(f"there is no folder {out}; give the --out of a comparison")
    stored = StoredRuns([], [])
    for path in sorted(found(out, NAME), key=lambda path: (path.stat().st_mtime, str(path))):
        try:
            record = Record.read(path)
        except InputError as error:
            stored.problems.append(f"left out: {error}")
        else:
            if record.trial is None:
                stored.runs.append(StoredRun(record, path.parent))
    if not stored.runs:
        said = f" ({'; '.join(stored.problems)})" if stored.problems else ""
        raise InputError(f"{out} holds no record of a run{said}; give the --out of a comparison")
    return stored
