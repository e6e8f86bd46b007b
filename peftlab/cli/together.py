"""What a person sees of runs that go on at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftlab.cli.watch import Shown

if TYPE_CHECKING:
    from pathlib import Path

    from peftlab.comparison.plan import Plan, Run
    from peftlab.records.record import Record


class Together(Shown):
    """Runs that go on at once: a line for each that has ended, and no bars."""

    def started(self, run: Run) -> None:
        """It waits for its turn."""

    def heard(self, word: str, *values: Any) -> None:
        """Too many speak at once."""

    def ended(self, run: Run, record: Record) -> None:
        """Count it and say how it went."""
        self.number += 1
        self.running = f"[{self.number}/{self.total}] {run.title}"
        super().ended(run, record)


def watcher_of(engine: str, plan: Plan, out: Path) -> Shown:
    """What shows a comparison on an engine."""
    return Together(plan, out) if engine == "ray" else Shown(plan, out)
