"""`compare`: look at the base, then make every run that is not finished yet.

Where, and how many at once, is the engine's to decide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

from peftlab.comparison.cost_prediction import predicted
from peftlab.comparison.engine import AGAIN, PROFILE, SEARCH, WORK, Call, Engine, Opened, Workflow
from peftlab.comparison.finished import at_rate, disturbed, finished
from peftlab.comparison.local import LocalEngine
from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.processes import RunFailed, server
from peftlab.comparison.profile import Profile
from peftlab.errors import InputError
from peftlab.printable import echo
from peftlab.records import folders
from peftlab.records.reading import StoredRun
from peftlab.records.record import Record
from peftlab.tasks.fit import Fit
from peftlab.verdict.outcome import said, verdict


class Watcher(Protocol):
    """What wants to know how a comparison goes on."""

    def planned(self, runs: list[Run], profile: Profile, finished: int) -> None:
        """Before the first run; so many of the runs are finished already."""

    def started(self, run: Run) -> None:
        """A run's process is starting."""

    def heard(self, word: str, *values: Any) -> None:
        """The run says one of these: see `work`, and of trials `search`."""

    def ended(self, run: Run, record: Record) -> None:
        """The run is finished, or has failed."""

    def again(self, runs: list[Run]) -> None:
        """All have ended; times of these are measured again, since others used the machine."""

    def begins(self, title: str) -> None:
        """Within a given time: what is measured next."""

    def stands(self, told: str, runs: list[StoredRun]) -> None:
        """It is measured; `told` says what it came to, `runs` are all that the verdict is of."""


class Silent:
    """Watches nothing."""

    def planned(self, runs: list[Run], profile: Profile, finished: int) -> None: ...
    def started(self, run: Run) -> None: ...
    def heard(self, word: str, *values: Any) -> None: ...
    def ended(self, run: Run, record: Record) -> None: ...
    def again(self, runs: list[Run]) -> None: ...
    def begins(self, title: str) -> None: ...
    def stands(self, told: str, runs: list[StoredRun]) -> None: ...


@dataclass(frozen=True)
class Compared:
    """All runs of a plan, in its order, and what the look before found."""

    runs: list[StoredRun]
    profile: Profile

    @property
    def records(self) -> list[Record]:
        """The records alone."""
        return [run.record for run in self.runs]

    @property
    def verdict(self) -> str:
        """What the runs show, in sentences, a line each; or why they show nothing."""
        problems: list[str] = []
        try:
            sentences = said(verdict(self.runs, problems=problems))
        except InputError as error:
            sentences = [str(error)]
        return "\n".join([*sentences, *problems])


def compare(
    plan: Plan,
    out: Path,
    watcher: Watcher | None = None,
    described: dict[str, Any] | None = None,
    engine: Engine | None = None,
) -> Compared:
    """Make every run of a plan in `out`; runs that are finished there are not made again.

    A run that fails is recorded as failed, and the others go on.

    Args:
        described: what else is written into `comparison.json`, the command above all.
        engine: what carries the runs out; by default processes of this machine, one at a time.

    Raises:
        InputError: a plan that cannot work, a folder of another comparison, or an engine that
            cannot begin.
        DiskFull, Stopped: what is finished is kept, and the same call continues.
    """
    watcher = watcher or Silent()
    with folders.only_one(out), (engine or LocalEngine()).opened(plan, out) as opened:
        profiled, runs = looked_at(plan, opened, out, described or {})
        runs.sort(key=lambda run: plan.seeds.index(run.seed))
        watcher.planned(runs, profiled, sum(finished(run, out) is not None for run in runs))
        workflows = [_workflow(run, out, watcher) for run in runs if _wanted(run, profiled, plan)]
        stored = opened.run(workflows, watcher.heard)
        stored = _undisturbed(stored, runs, opened, out, watcher)
    return Compared(stored, profiled)


def looked_at(
    plan: Plan, opened: Opened, out: Path, described: dict[str, Any]
) -> tuple[Profile, list[Run]]:
    """What a look at the base and at each method says, and the runs with what they will cost.

    From then on the folder is this comparison's.
    """
    profiles = [predicted(plan, one, opened, out) for one in _profiles(plan, opened)]
    profiled = reduce(Profile.joined, profiles)
    folders.claim(out, folders.identity(plan.task, profiled.base), described)
    return profiled, [one.predicting(run) for one in profiles for run in one.runs(plan)]


def _profiles(plan: Plan, opened: Opened) -> list[Profile]:
    """Of the base in each format, a process each; one limit of source tokens for all."""
    profiles = [
        opened.run([_profile(replace(plan, base_dtypes=(dtype,)))], lambda *_: None)[0]
        for dtype in plan.base_dtypes
    ]
    limits = [one.source_tokens for one in profiles if one.source_tokens is not None]
    fit = reduce(Fit.joined, (one.fit for one in profiles))
    return [replace(one, source_tokens=min(limits, default=None), fit=fit) for one in profiles]


def _profile(plan: Plan) -> Workflow[Profile]:
    profiled: Profile = yield Call(PROFILE, plan)
    return profiled


def _wanted(run: Run, profiled: Profile, plan: Plan) -> bool:
    """A method that was left out has one record, which says why, whatever the seeds."""
    return run.label not in profiled.left_out or run.seed == plan.seeds[0]


def _workflow(run: Run, out: Path, watcher: Watcher) -> Workflow[StoredRun]:
    """A run's record: the one that lies there, or after the search for its rate a new one."""
    known, record = at_rate(run, out), finished(run, out)
    if known is not None and record is not None:
        return StoredRun(record, out / known.folder)
    if run.left_out is not None:
        return StoredRun(_left_out(run, out), out / run.folder)
    watcher.started(run)
    try:
        if known is None:
            searched = yield Call(SEARCH, run, run.search_folder)
            known = run.at(searched.rate, searched=searched)
        folders.forget_failure(out / known.folder)
        record = yield Call(WORK, known, known.folder)
    except RunFailed as error:
        known = known or run
        record = _failed(known, out, str(error))
    assert record is not None
    watcher.ended(known, record)
    return StoredRun(record, out / known.folder)


def _undisturbed(
    stored: list[StoredRun], runs: list[Run], opened: Opened, out: Path, watcher: Watcher
) -> list[StoredRun]:
    """The same, times measured again where others used the machine meanwhile."""
    later = [i for i, one in enumerate(stored) if disturbed(one.record)]
    if not later:
        return stored
    known = {out / run.folder: run for one in runs if (run := at_rate(one, out)) is not None}
    later_runs = [(i, known[stored[i].folder]) for i in later]
    watcher.again([run for _, run in later_runs])
    measured = opened.run([_again(run, stored[i]) for i, run in later_runs], lambda *_: None)
    newer = dict(zip(later, measured, strict=True))
    return [newer.get(i, one) for i, one in enumerate(stored)]


def _again(run: Run, stored: StoredRun) -> Workflow[StoredRun]:
    """A failure leaves the record as it is, which says that others used the machine."""
    try:
        record: Record = yield Call(AGAIN, run, run.folder)
    except RunFailed as error:
        told = f"Warning: times of {run.title}, were not measured again: {error}"
        echo(told, err=True)
        return stored
    return replace(stored, record=record)


def _left_out(run: Run, out: Path) -> Record:
    changes = {"status": "left out", "error": run.left_out}
    record = run.record().model_copy(update=changes)
    record.write(out / run.folder)
    return record


def _failed(run: Run, out: Path, message: str) -> Record:
    """What the run has recorded of its failure, or, where it could not, that alone."""
    record = folders.record(out / run.folder, run.config_hash)
    if record is None or record.status != "failed":
        record = run.record().failed(message)
        record.write(out / run.folder)
    return record


def warm_up() -> None:
    """Start the fork server, so that it imports while the caller does something else."""
    server()
