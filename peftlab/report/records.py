"""The records of a folder, and what cannot be read there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftlab.compare.outcome import Kept
from peftlab.compare.record import NAME, Record
from peftlab.errors import InputError


@dataclass(frozen=True)
class Found:
    """The records of runs under a folder, and a sentence for each that is unusable.

    Trials of a search are no runs: what came of them stands in the records of their method's runs.
    """

    runs: list[Kept]
    problems: list[str]

    @property
    def records(self) -> list[Record]:
        """The records alone."""
        return [run.record for run in self.runs]


def read(out: Path) -> Found:
    """Every `record.json` under a folder, oldest path name first; damaged ones are named, left out.

    Raises:
        InputError: no such folder, or no record in it.
    """
    if not out.is_dir():
        raise InputError(f"there is no folder {out}; give the --out of a comparison")
    found = Found([], [])
    for path in sorted(out.rglob(NAME), key=lambda path: (path.stat().st_mtime, str(path))):
        try:
            record = Record.read(path)
        except InputError as error:
            found.problems.append(f"left out: {error}")
        else:
            if record.trial is None:
                found.runs.append(Kept(record, path.parent))
    if not found.runs:
        said = f" ({'; '.join(found.problems)})" if found.problems else ""
        raise InputError(f"{out} holds no record of a run{said}; give the --out of a comparison")
    return found
