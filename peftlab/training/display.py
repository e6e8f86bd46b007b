"""What shows a person how a training goes on; see `cli.dashboard`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Show = Callable[[int, float, float], None]  # step, loss, tokens per second
Display = Callable[[str, int, int], AbstractContextManager[Show]]  # title, steps, first step


@contextmanager
def silent(*_: object) -> Iterator[Show]:
    """Show nothing."""
    yield lambda *_: None
