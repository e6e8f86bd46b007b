"""The live view of runs: which one, its loss so far, the time left, memory, and what comes next.

On a terminal it is drawn in place and gone when the run has ended; elsewhere it is a line a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from peftlab.measure import held
from peftlab.printable import printable, terminal
from peftlab.units import duration, size

if TYPE_CHECKING:
    import torch

    from peftlab.training.display import Display, Show

LINE_SECONDS = 60.0  # between lines where nothing can be drawn in place
_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 24  # columns of the loss's course
_NEXT = 4  # runs that are named
_WORDS = {
    "load": "loading",
    "train": "training",
    "evaluate": "losses",
    "generate": "generating",
    "latency": "timing answers",
}

Clock = Callable[[], float]


@dataclass(frozen=True)
class Expected:
    """A run that is to come: its name, and the seconds and bytes it is predicted to train in."""

    title: str
    seconds: float | None = None
    memory: float | None = None


@dataclass
class Now:
    """The run that is under way. began, since: of the run and of its phase, by the clock."""

    expected: Expected
    began: float
    since: float
    phase: str = "starting"
    trial: str = ""
    total: int = 0
    first: int = 0
    done: int = 0
    losses: list[float] = field(default_factory=list)
    speed: float | None = None
    memory: int | None = None
    peak: int = 0

    @property
    def amount(self) -> str:
        """How much of the phase is done."""
        return f"{self.done:,}/{self.total:,}" if self.total else ""

    def enter(self, phase: str, total: int, done: int, now: float) -> None:
        """Begin a phase; a training has its own losses, and only trainings have trials."""
        self.phase, self.total, self.first, self.done = _WORDS[phase], total, done, done
        self.since, self.speed = now, None
        if phase == "train":
            self.losses = []
        elif phase != "load":
            self.trial = ""

    def step(self, done: int, loss: float | None, speed: float | None) -> None:
        """So much of the phase is done; only training has a loss."""
        self.done = done
        if loss is not None:
            self.speed = speed
            self.losses.append(loss)

    def left(self, now: float) -> float | None:
        """Seconds until the phase has ended, as it went so far."""
        done = self.done - self.first
        return (now - self.since) * (self.total - self.done) / done if done > 0 else None


class Dashboard:
    """What is known of the runs, and how it is drawn. It hears what runs say."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock, self.began = clock, clock()
        self.waiting: list[Expected] = []
        self.now: Now | None = None
        self.number = self.total = 0
        self._walls: list[float] = []  # of the runs that have ended
        self._besides: list[float] = []  # what they took besides training

    def plan(self, waiting: Sequence[Expected], number: int, total: int) -> None:
        """So many runs of the total are finished; these are to come."""
        self.waiting, self.number, self.total = list(waiting), number, total

    def begin(self, title: str) -> None:
        """A run begins; with it goes whatever stood before it in the line."""
        titles = [one.title for one in self.waiting]
        place = titles.index(title) if title in titles else -1
        expected = self.waiting[place] if place >= 0 else Expected(title)
        self.waiting, now = self.waiting[place + 1 :], self.clock()
        self.number += 1
        self.now = Now(expected, now, now)

    def hear(self, word: str, *values: Any) -> None:
        """What a run says, see `Watcher`; before the first one begins, nothing."""
        now = self.now
        if now is None:
            return
        if word == "trial":
            now.trial = "trial {} of {}, rate {:.2g}".format(*values)
        elif word == "phase":
            name, total, done = values
            now.enter(name, total, done, self.clock())
        elif word == "step":
            now.step(*values)
        elif word == "memory":
            (now.memory,) = values
            now.peak = max(now.peak, *values)

    def end(self, trained: float) -> None:
        """The run has ended; so many of its seconds were training."""
        if self.now is not None:
            wall = self.clock() - self.now.began
            self._walls.append(wall)
            self._besides.append(max(wall - trained, 0.0))
            self.now = None

    def left(self) -> float | None:
        """Seconds until all has ended: predictions, and what runs took so far besides training."""
        remaining = 0.0
        if self.now is not None:
            whole, now = self._usual(self.now.expected), self.clock()
            if whole is None:
                return None
            remaining = max(whole - (now - self.now.began), self.now.left(now) or 0.0, 0.0)
        to_come = [self._usual(one) for one in self.waiting]
        known = [seconds for seconds in to_come if seconds is not None]
        return remaining + sum(known) if len(known) == len(to_come) else None

    def _usual(self, one: Expected) -> float | None:
        """Seconds that a run takes in all."""
        if one.seconds is not None:
            return one.seconds + (fmean(self._besides) if self._besides else 0.0)
        return fmean(self._walls) if self._walls else None

    def line(self) -> str:
        """The run in one line."""
        now = self.now
        if now is None:
            return ""
        left = now.left(self.clock())
        parts = [now.trial, f"{now.phase} {now.amount}".strip()]
        parts += [f"loss {now.losses[-1]:.3f}"] if now.losses else []
        parts += [f"{_whole(left)} left"] if left is not None else []
        parts += [size(now.memory)] if now.memory is not None else []
        return f"{now.expected.title}: {', '.join(filter(None, parts))}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Panel]:
        if self.now is None:
            return
        rows: list[RenderableType] = [self._progress(self.now), self._figures(self.now, options)]
        if self.waiting:
            rows.append(self._next())
        yield Panel(
            Group(*rows),
            title=Text(
                printable(self.now.expected.title), "bold", overflow="ellipsis", no_wrap=True
            ),
            title_align="left",
            subtitle=Text(self._all(), "dim"),
            subtitle_align="left",
            border_style="dim",
            width=min(options.max_width, 110),
        )

    def _progress(self, now: Now) -> Table:
        left = now.left(self.clock())
        told = f"{_whole(left)} left" if left is not None else ""
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        for ratio in (None, 1, None, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        phase = f"{now.trial}: {now.phase}" if now.trial else now.phase
        bar = ProgressBar(total=now.total or None, completed=now.done, pulse=not now.total)
        grid.add_row(Text(phase, overflow="ellipsis"), bar, now.amount, told)
        return grid

    def _figures(self, now: Now, options: ConsoleOptions) -> Text:
        parts = []
        if now.losses:
            curve = "" if options.ascii_only else f" {sparks(now.losses)}"
            parts.append(f"loss {now.losses[-1]:.3f}{curve} lowest {min(now.losses):.3f}")
        if now.speed is not None:
            parts.append(f"{now.speed:,.0f} tokens/s")
        if now.memory is not None:
            parts.append(f"memory {size(now.memory)}, peak {size(now.peak)}")
        if now.expected.memory:
            parts.append(f"~{size(now.expected.memory)} predicted")
        return Text("   ".join(parts) or "…")

    def _next(self) -> Text:
        names = ", ".join(one.title for one in self.waiting[:_NEXT])
        more = len(self.waiting) - _NEXT
        text = f"next: {names}" + (f" and {more} more" if more > 0 else "")
        return Text(printable(text), "dim", overflow="ellipsis", no_wrap=True)

    def _all(self) -> str:
        left = self.left()
        told = [f"run {self.number} of {self.total}"] if self.total > 1 else []
        told.append(f"{_whole(self.clock() - self.began)} so far")
        told += [f"about {_whole(left)} left"] if left is not None else []
        return ", ".join(told)


class View:
    """A dashboard on a console, from `open` to `close`."""

    def __init__(self, board: Dashboard, console: Console) -> None:
        self.board, self.console, self._told = board, console, board.clock()
        self._live: Live | None = None

    def open(self) -> None:
        """Draw, where that can be done."""
        if self.console.is_terminal:
            self._live = Live(
                self.board, console=self.console, refresh_per_second=4, transient=True
            )
            self._live.start()

    def close(self) -> None:
        """Take it away again."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def hear(self, word: str, *values: Any) -> None:
        """Pass it on; where nothing is drawn, say now and then how it stands."""
        self.board.hear(word, *values)
        now = self.board.clock()
        if not self.console.is_terminal and now - self._told > LINE_SECONDS:
            self._told = now
            self.console.print(self.board.line(), markup=False, highlight=False, soft_wrap=True)


def sparks(values: Sequence[float], width: int = _SPARKS) -> str:
    """The course of numbers as a row of bars, means of as many as fall into a column."""
    count = min(width, len(values))
    cuts = [i * len(values) // count for i in range(count + 1)]
    means = [fmean(values[i:j]) for i, j in pairwise(cuts)]
    low, high = min(means), max(means)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[round((value - low) / step)] for value in means)


def _whole(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else duration(seconds)


def live(device: torch.device) -> Display:
    """For one training in this process."""

    @contextmanager
    def shown(title: str, total: int, first: int) -> Iterator[Show]:
        board = Dashboard()
        view = View(board, terminal())
        board.plan([], 0, 1)
        board.begin(title)
        view.hear("phase", "train", total, first)

        def show(step: int, loss: float, speed: float) -> None:
            view.hear("step", step, loss, speed)
            view.hear("memory", held(device))

        view.open()
        try:
            yield show
        finally:
            view.close()

    return shown
