"""The engine without a cluster: processes of this machine, one after the other.

One after the other, because runs that share a machine would be measured against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peftlab.comparison.engine import SURVEY, Course, Opened, T
from peftlab.comparison.plan import Plan
from peftlab.comparison.processes import RunFailed, Say, call
from peftlab.comparison.profile import Survey


class Processes:
    """One process at a time, forked from a server; see `processes`."""

    @contextmanager
    def opened(self, plan: Plan, out: Path) -> Iterator[Opened]:
        """Nothing has to be made ready."""
        yield _Opened(plan, out)


class _Opened:
    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out = plan, out

    def survey(self, dtype: str) -> Survey:
        found: Survey = call(SURVEY, self.plan, self.out, dtype)
        return found

    def go(self, courses: Sequence[Course[T]], hear: Say) -> list[T]:
        return [self._follow(course, hear) for course in courses]

    def _follow(self, course: Course[T], hear: Say) -> T:
        try:
            job = next(course)
            while True:
                try:
                    result = call(job.function, job.run, self.out, hear=hear)
                except RunFailed as error:
                    job = course.throw(error)
                else:
                    job = course.send(result)
        except StopIteration as end:
            value: T = end.value
            return value
