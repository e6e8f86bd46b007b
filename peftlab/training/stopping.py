"""Ctrl-C and SIGTERM: a run ends after the step that is under way, with everything saved."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_APART = 2.0  # seconds; the terminal's signal and the launcher's come closer than that


@contextmanager
def graceful(together: bool = False) -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM in a list; a second Ctrl-C interrupts at once.

    Args:
        together: one Ctrl-C may come twice, since a launcher passes it on to its processes.
    """
    stop: list[int] = []
    first = 0.0

    def note(number: int, _: Any) -> None:
        nonlocal first
        if not stop:
            first = time.monotonic()
        elif not together or time.monotonic() - first > _APART:
            raise KeyboardInterrupt
        stop.append(number)

    try:
        previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # signals can be caught in the main thread alone
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
