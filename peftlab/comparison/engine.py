"""What an engine is: something that carries out jobs, each in a process of its own.

A course is one run's way from a plan to a record, or to a prediction, written as a generator: it
yields a job whenever something has to be computed, gets the result or the error, and returns what
came of it. So the way is the same on every engine, which decides alone where and how many at once.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.processes import Say
from peftlab.comparison.profile import Survey

WORK = "peftlab.comparison.work:work"
SEARCH = "peftlab.comparison.search:search"
SURVEY = "peftlab.comparison.profile:survey"
AGAIN = "peftlab.comparison.again:again"
PREDICT = "peftlab.comparison.cost_prediction:predict"

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One call of a function with a run; two jobs of one function and folder are the same.

    folder: all that it reads and writes, relative to the comparison's.
    """

    function: str
    run: Run
    folder: Path

    @property
    def key(self) -> tuple[str, Path]:
        """What makes it this job."""
        return self.function, self.folder


Course = Generator[Job, Any, T]


class Opened(Protocol):
    """An engine at work on one comparison."""

    def survey(self, dtype: str) -> Survey:
        """The look before the runs, at the base in one number format.

        Raises:
            PeftlabError: what `survey` raises.
        """

    def go(self, courses: Sequence[Course[T]], hear: Say) -> list[T]:
        """Follow every course to its end; returns what they return.

        Args:
            hear: gets what jobs say, on engines that do one at a time.

        Raises:
            DiskFull, Stopped: what is finished is kept.
        """


class Engine(Protocol):
    """Opens itself for a comparison."""

    def opened(self, plan: Plan, out: Path) -> AbstractContextManager[Opened]:
        """Ready to work in `out`, which this process holds (`folders.only_one`).

        Raises:
            InputError: what is missing for that.
        """
