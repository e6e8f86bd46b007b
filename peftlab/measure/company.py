"""What share of the cores given to this process others used meanwhile.

The kernel counts how long each core was busy, whatever kept it so, time that a hypervisor took
(steal) included; less what the comparison's own processes used, the rest was others'. The
comparison's processes are its parent with all that it has started: fork server, runs, helpers.
Linux alone tells which cores a process may use and how busy each was; elsewhere nothing is known.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

MOST = 0.05
"""Of the cores: a phase in which others took more was not measured alone."""

_SHORTEST = 0.4
"""Seconds. Counters move by hundredths of a second, so a shorter phase could not tell `MOST`."""

_COUNTED = 0.5
"""Of a process's own time the cores must show so much, or their counters are not kept."""


@dataclass(frozen=True)
class Counters:
    """What is counted at a moment; differences of two have a meaning.

    cores: how many. busy, own: seconds of all cores together, and of the comparison alone.
    """

    at: float
    cores: int
    busy: float
    own: float


_STAT = Path("/proc/stat")
_BUSY = (0, 1, 2, 5, 6, 7)  # columns: user, nice, system, irq, softirq, steal; guests are in user


def counters() -> Counters | None:
    """Those of this moment; None where the system keeps none."""
    if not (hasattr(os, "sched_getaffinity") and _STAT.exists()):
        return None
    cores, own = os.sched_getaffinity(0), _own_seconds()
    busy = _busy_seconds(_STAT.read_text(encoding="ascii"))
    if not busy.keys() >= cores:  # a container that shows other cores than it gives
        return None
    return Counters(time.monotonic(), len(cores), sum(busy[core] for core in cores), own)


def _busy_seconds(stat: str) -> dict[int, float]:
    """By core, of a text like /proc/stat (proc(5))."""
    seconds = {}
    for line in stat.splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            busy = sum(int(ticks[column]) for column in _BUSY if column < len(ticks))
            seconds[int(name.removeprefix("cpu"))] = busy / os.sysconf("SC_CLK_TCK")
    return seconds


def _own_seconds() -> float:
    """Of the parent and all that it has started; those that have ended are in their parents'."""
    parent = multiprocessing.parent_process()
    seconds = 0.0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(os.getpid() if parent is None else parent.pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it has just ended
                own = process.cpu_times()
                seconds += own.user + own.system + own.children_user + own.children_system
    return seconds


@dataclass
class Company:
    """What others used over some stretches of time together."""

    seconds: float = 0.0  # of all cores: those that there were
    others: float = 0.0  # of all cores: those that others used
    shortest: float = _SHORTEST
    known: bool = True

    def add(self, begin: Counters | None, end: Counters | None) -> None:
        """Count a stretch between two moments."""
        if begin is None or end is None or begin.cores != end.cores:
            self.known = False
            return
        busy, own = end.busy - begin.busy, end.own - begin.own
        if busy < _COUNTED * own - _SHORTEST:
            self.known = False
            return
        self.seconds += (end.at - begin.at) * end.cores
        self.others += max(0.0, busy - own)
        self.shortest = _SHORTEST * end.cores

    @property
    def share(self) -> float | None:
        """Of the cores' time, what others used; None where that is not known."""
        if not self.known or self.seconds < self.shortest:
            return None
        return min(1.0, self.others / self.seconds)


@contextmanager
def in_company() -> Iterator[Company]:
    """What others use while a block runs: `with in_company() as company: …; company.share`."""
    company, begin = Company(), counters()
    try:
        yield company
    finally:
        company.add(begin, counters())
