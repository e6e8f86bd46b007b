"""The engine without a cluster: processes of this machine, one after the other.

One after the other, because runs that share a machine would be measured against each other.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftlab.comparison.engine import PREDICT, PROFILE, TRIAL, Call, Opened, T, Workflow, advance
from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.processes import RunFailed, Say, Stopped, call
from peftlab.comparison.shared_base import Named, SharedBase
from peftlab.guests import is_guest
from peftlab.records import folders


@dataclass(frozen=True)
class LocalEngine:
    """One process at a time, forked from a server; see `processes`.

    While a comparison is planned, and while short trainings screen its methods, all processes share
    one loaded base; a run, which is measured, loads its own. What the frozen trunk computes is kept
    in files of the comparison's folder until all runs are made.
    """

    out: Path = Path()
    planning: SharedBase = field(default_factory=SharedBase)

    @contextmanager
    def opened(self, plan: Plan, out: Path) -> Iterator[Opened]:
        """Nothing has to be made ready."""
        goes_on = False
        try:
            with SharedBase() as planning:
                yield LocalEngine(out, planning)
        except Stopped:
            goes_on = True  # the same command, with what is kept
            raise
        finally:
            if not goes_on:
                shutil.rmtree(out / folders.TRUNK, ignore_errors=True)

    def run(self, workflows: Sequence[Workflow[T]], hear: Say) -> list[T]:
        """One after the other, see `Opened`."""
        return [self._follow(workflow, hear) for workflow in workflows]

    def _follow(self, workflow: Workflow[T], hear: Say) -> T:
        answer: Any = None
        while True:
            try:
                asked = advance(workflow, answer)
            except StopIteration as end:
                value: T = end.value
                return value
            try:
                answer = self._call(asked, hear)
            except RunFailed as error:
                answer = error

    def _call(self, asked: Call, hear: Say) -> Any:
        base, kept = _planned_on(asked), self.out / folders.TRUNK
        if base is not None and SharedBase.works_on(base.device):
            return self.planning.call(base, asked.function, (asked.subject, self.out, kept), hear)
        self.planning.close()
        return call(asked.function, asked.subject, self.out, kept, hear=hear)


def _planned_on(asked: Call) -> Named | None:
    """The base that a call needs to plan with; None for one that does not plan."""
    subject = asked.subject
    if asked.function == PROFILE and isinstance(subject, Plan):
        return Named(subject.model, subject.base_dtypes[0], subject.device)
    if asked.function in (PREDICT, TRIAL) and isinstance(subject, Run):
        if is_guest(subject.method):
            return None
        return Named(subject.base.name, subject.base.dtype, subject.base.device)
    return None
