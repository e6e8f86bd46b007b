"""What a person sees of a training run: a bar with loss, tokens/s and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Show = Callable[[int, float, float], None]  # step, loss, tokens per second
Display = Callable[[str, int, int], AbstractContextManager[Show]]  # title, steps, first step


@contextmanager
def silent(*_: object) -> Iterator[Show]:
    """Show nothing."""
    yield lambda *_: None


@contextmanager
def bar(title: str, total: int, first: int) -> Iterator[Show]:
    """A progress bar on a terminal; rich prints nothing that moves where there is none."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=total, completed=first, loss=float("nan"), speed=0.0)
        yield lambda step, loss, speed: progress.update(
            task, completed=step, loss=loss, speed=speed
        )
