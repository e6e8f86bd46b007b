"""What an engine is: something that carries out calls, each in a process of its own.

A workflow is one run's way from a plan to a record, or to a prediction, written as a generator: it
yields a call whenever something has to be computed, gets the result or the error, and returns what
came of it. So the way is the same on every engine, which decides alone where and how many at once.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.processes import RunFailed, Say

WORK = "peftlab.comparison.work:work"
SEARCH = "peftlab.comparison.search:search"
PROFILE = "peftlab.comparison.profile:profile"
AGAIN = "peftlab.comparison.again:again"
PREDICT = "peftlab.comparison.cost_prediction:predict"
TRIAL = "peftlab.comparison.within.calls:trial"
MORE = "peftlab.comparison.within.calls:more"

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One call of a function with a run; two calls of one function and folder are the same.

    subject: the run, or, where there are no runs yet, the plan. folder: all that a run reads and
    writes, relative to the comparison's. The function is called as `function(say, subject, out)`;
    an engine may add a folder in which runs of one machine share what the frozen trunk computes.
    """

    function: str
    subject: Run | Plan
    folder: Path | None = None

    @property
    def key(self) -> tuple[str, Path | None]:
        """What makes it this call."""
        return self.function, self.folder

    def __str__(self) -> str:
        subject = self.subject
        if isinstance(subject, Run):
            return subject.title
        return f"the profile of {subject.model}"


Workflow = Generator[Call, Any, T]


def advance(workflow: Workflow[T], answer: Any) -> Call:
    """Take a workflow on to its next call: with None first, then with a result or a `RunFailed`.

    Raises:
        StopIteration: it has come to its end, see `value`.
    """
    return workflow.throw(answer) if isinstance(answer, RunFailed) else workflow.send(answer)


class Opened(Protocol):
    """An engine at work on one comparison."""

    def run(self, workflows: Sequence[Workflow[T]], hear: Say) -> list[T]:
        """Follow every workflow to its end; returns what they return.

        Args:
            hear: gets what calls say, on engines that do one at a time.

        Raises:
            DiskFull, Stopped: what is finished is kept. And what workflows raise.
        """


class Engine(Protocol):
    """Opens itself for a comparison."""

    def opened(self, plan: Plan, out: Path) -> AbstractContextManager[Opened]:
        """Ready to work in `out`, which this process holds (`folders.only_one`).

        Raises:
            InputError: what is missing for that.
        """
