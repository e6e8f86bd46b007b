"""The given time: how much is left of it, and an end to what still runs when it is used up."""

from __future__ import annotations

import signal
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from peftlab.comparison.processes import Stopped
from peftlab.errors import PeftlabError

_BEYOND, _MOST_BEYOND = 0.03, 60.0  # of the given time, and seconds, until a run is stopped


class OutOfTime(PeftlabError):
    """The time is used up; what was under way goes on from its checkpoint with more."""


@dataclass
class Clock:
    """What of the given time is left; the system's clock may be set meanwhile.

    Attributes:
        given: seconds in all. before: that were used when the comparison was last left.
    """

    given: float
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def used(self) -> float:
        """Seconds, of earlier times too."""
        return self.before + time.monotonic() - self.began

    def left(self) -> float:
        """Seconds."""
        return self.given - self.used

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Whatever runs within is stopped a little after the time is used up.

        Raises:
            OutOfTime: that happened.
        """
        beyond = min(_BEYOND * self.given, _MOST_BEYOND)
        timer = threading.Timer(max(0.0, self.left() + beyond), interrupt_main)
        timer.daemon = True
        timer.start()
        try:
            with self._heard():
                yield
        except (Stopped, KeyboardInterrupt) as stopped:
            if self.left() > 0:
                raise
            raise OutOfTime("the time is used up") from stopped
        finally:
            timer.cancel()

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """The timer interrupts a process too that ignores Ctrl-C, as a script's background jobs do;
        to others' Ctrl-C it stays deaf.
        """
        deaf = threading.current_thread() is threading.main_thread() and (
            signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        )
        if not deaf:
            yield
            return

        def interrupted(number: int, frame: FrameType | None) -> None:
            if self.left() <= 0:
                signal.default_int_handler(number, frame)

        signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
