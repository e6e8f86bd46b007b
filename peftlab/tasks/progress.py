"""A bar for readings that take longer than one waits for in silence."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from peftlab.printable import printable, terminal

Item = TypeVar("Item")

_FIRST = 20_000  # rows that are read before one wonders


def shown(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """The same items, counted on a terminal's standard error once there are many."""
    return _shown(items, what, total) if sys.stderr.isatty() else items


def _shown(items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    parts = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*parts, console=terminal(err=True), transient=True) as bar:
        task = bar.add_task(printable(what), total=total, visible=False)
        for count, item in enumerate(items, start=1):
            yield item
            if count % _FIRST == 0:
                bar.update(task, completed=count, visible=True)
