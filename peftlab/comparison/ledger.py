"""Where a run's time goes: every moment belongs to one of the seconds of its record."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from peftlab.records.record import Seconds
from peftlab.training import Trained


class Ledger:
    """Begins when it is made; each moment is entered once, under what it went to."""

    def __init__(self) -> None:
        self.begun = self._since = time.perf_counter()
        self.earlier = 0.0  # what another process had done of the same run
        self._seconds: dict[str, float] = defaultdict(float)

    def went_to(self, name: str, own: float | None = None) -> None:
        """Enter the time since the last entry.

        Args:
            own: what of it was the thing itself, where that was measured; the rest went to the
                measurement.
        """
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        own = passed if own is None else min(own, passed)
        self._seconds[name] += own
        self._seconds["measure"] += passed - own

    def trained(self, trained: Trained[Any], seconds: float) -> None:
        """Enter a training that took so many seconds in this process."""
        self.went_to("prepare", seconds)
        self.earlier = trained.earlier_seconds
        parts = {
            "train": trained.seconds,
            "validation": trained.validation_seconds,
            "save": trained.saving_seconds,
        }
        for name, part in parts.items():
            self._seconds[name] += part
        self._seconds["prepare"] += self.earlier - sum(parts.values())

    def close(self, seconds: Seconds) -> None:
        """Write everything into a record's seconds."""
        self.went_to("save")
        for name, value in self._seconds.items():
            setattr(seconds, name, max(0.0, value))
        seconds.total = time.perf_counter() - self.begun + self.earlier
