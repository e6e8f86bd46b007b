"""The engine without a cluster: processes of this machine, one after the other.

One after the other, because runs that share a machine would be measured against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab.comparison.engine import Opened, T, Workflow, advance
from peftlab.comparison.plan import Plan
from peftlab.comparison.processes import RunFailed, Say, call


@dataclass(frozen=True)
class LocalEngine:
    """One process at a time, forked from a server; see `processes`."""

    out: Path = Path()

    @contextmanager
    def opened(self, plan: Plan, out: Path) -> Iterator[Opened]:
        """Nothing has to be made ready."""
        yield LocalEngine(out)

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
                answer = call(asked.function, asked.subject, self.out, hear=hear)
            except RunFailed as error:
                answer = error
