"""The records of a folder, and what cannot be read there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftlab.errors import InputError
from peftlab.records.record import NAME, Record


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
    found = StoredRuns([], [])
    for path in sorted(out.rglob(NAME), key=lambda path: (path.stat().st_mtime, str(path))):
        try:
            record = Record.read(path)
        except InputError as error:
            found.problems.append(f"left out: {error}")
        else:
            if record.trial is None:
                found.runs.append(StoredRun(record, path.parent))
    if not found.runs:
        said = f" ({'; '.join(found.problems)})" if found.problems else ""
        raise InputError(f"{out} holds no record of a run{said}; give the --out of a comparison")
    return found
