"""`compare`: look at the base, then make every run that is not finished yet, one after the other.

One after the other, because runs that share a machine would be measured against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from peftlab.compare import folders
from peftlab.compare.outcome import Kept
from peftlab.compare.plan import Plan, Run, runs_of, searches
from peftlab.compare.processes import RunFailed, call, server
from peftlab.compare.record import Record
from peftlab.compare.survey import Survey


class Watcher(Protocol):
    """What wants to know how a comparison goes on."""

    def planned(self, runs: list[Run], survey: Survey, finished: int) -> None:
        """Before the first run; so many of the runs are finished already."""

    def started(self, run: Run) -> None:
        """A run's process is starting."""

    def heard(self, word: str, *values: Any) -> None:
        """The run says ("phase", name, total, done) or ("step", done, loss, tokens/s)."""

    def ended(self, run: Run, record: Record) -> None:
        """The run is finished, or has failed."""


class Silent:
    """Watches nothing."""

    def planned(self, runs: list[Run], survey: Survey, finished: int) -> None: ...
    def started(self, run: Run) -> None: ...
    def heard(self, word: str, *values: Any) -> None: ...
    def ended(self, run: Run, record: Record) -> None: ...


@dataclass(frozen=True)
class Compared:
    """All runs of a plan, in its order, and what the look before found."""

    runs: list[Kept]
    survey: Survey

    @property
    def records(self) -> list[Record]:
        """The records alone."""
        return [run.record for run in self.runs]


def compare(
    plan: Plan, out: Path, watcher: Watcher | None = None, described: dict[str, Any] | None = None
) -> Compared:
    """Make every run of a plan in `out`; runs that are finished there are not made again.

    A run that fails is recorded as failed, and the others go on.

    Args:
        described: what else is written into `comparison.json`, the command above all.

    Raises:
        InputError: a plan that cannot work, or a folder of another comparison.
        DiskFull, Stopped: what is finished is kept, and the same call continues.
    """
    watcher = watcher or Silent()
    with folders.only_one(out):
        found: Survey = call("peftlab.compare.survey:survey", plan)
        folders.claim(out, folders.identity(plan.task, found.base), described or {})
        task = found.limited(plan.task)
        runs = runs_of(plan, found.base, task)
        known = [_searched(run, out) for run in runs]
        finished = [run for run in known if run and _finished(run, out)]
        watcher.planned(runs, found, len(finished))
        kept = [_made(run, out, watcher) for run in runs]
    return Compared(kept, found)


def _finished(run: Run, out: Path) -> Record | None:
    return folders.finished(out, run.folder, run.config_hash)


def _searched(run: Run, out: Path) -> Run | None:
    """The run at the rate that an earlier search has found; None where there was none yet."""
    if not searches(run):
        return run
    found = folders.found_rate(out / run.search_folder)
    return None if found is None else run.at(found.rate, found=found)


def _made(run: Run, out: Path, watcher: Watcher) -> Kept:
    """A run's record: the one that lies there, or after the search for its rate a new one."""
    at_rate = _searched(run, out)
    if at_rate is not None and (record := _finished(at_rate, out)) is not None:
        return Kept(record, out / at_rate.folder)
    watcher.started(run)
    try:
        if at_rate is None:
            found = call("peftlab.compare.search:search", run, out, hear=watcher.heard)
            at_rate = run.at(found.rate, found=found)
        record = call("peftlab.compare.work:work", at_rate, out, hear=watcher.heard)
    except RunFailed as error:
        at_rate = at_rate or run
        record = _failed(at_rate, out, str(error))
    watcher.ended(at_rate, record)
    return Kept(record, out / at_rate.folder)


def _failed(run: Run, out: Path, message: str) -> Record:
    """What the run has recorded of its failure, or, where it could not, that alone."""
    record = folders.record(out / run.folder, run.config_hash)
    if record is None or record.status != "failed":
        record = run.record().failed(message)
        record.write(out / run.folder)
    return record


def warm_up() -> None:
    """Start the fork server, so that it imports while the caller does something else."""
    from multiprocessing import forkserver

    if server().get_start_method() == "forkserver":
        forkserver.ensure_running()
