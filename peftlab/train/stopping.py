"""Ctrl-C and SIGTERM: a run ends after the step that is under way, with everything saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def graceful() -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM in a list; a second Ctrl-C interrupts at once."""
    stop: list[int] = []

    def note(number: int, _: Any) -> None:
        if stop:
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
