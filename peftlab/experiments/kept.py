"""What an experiment's folder holds: `experiment.json` says which run stands in which row.

The file holds the experiment itself, so that its table can be made again wherever the folder goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftlab.errors import InputError
from peftlab.experiments.spec import ExperimentSpec, parse
from peftlab.files import read_json
from peftlab.records import folders
from peftlab.records.record import NAME, Record

FILE = "experiment.json"


@dataclass(frozen=True)
class Cell:
    """A run and its place. folder: of the run, relative to the experiment's."""

    model: str
    task: str
    row: str
    folder: str

    @property
    def place(self) -> tuple[str, str, str]:
        """Where it stands; the seeds of one method share a place."""
        return self.model, self.task, self.row


@dataclass(frozen=True)
class Experiment:
    """What an experiment's folder holds.

    Attributes:
        models, tasks: those that were asked for. records: of the runs that there are, by cell.
    """

    spec: ExperimentSpec
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    records: dict[Cell, Record]


def read(out: Path) -> Experiment:
    """What `run` left in a folder.

    Raises:
        InputError: there is no experiment, or its file or a record is damaged.
    """
    values = read_json(out / FILE)
    try:
        cells = [Cell(**cell) for cell in values["cells"]]
        models, tasks = tuple(values["models"]), tuple(values["tasks"])
        spec = parse(values["experiment"], str(out / FILE))
    except (KeyError, TypeError) as error:
        raise InputError(f"{out / FILE} is damaged: {error}") from error
    records = {cell: Record.read(out / cell.folder / NAME) for cell in cells}
    return Experiment(spec, models, tasks, records)


def is_experiment(out: Path) -> bool:
    """Whether a folder holds an experiment."""
    return (out / FILE).is_file() and not (out / folders.COMPARISON).exists()
