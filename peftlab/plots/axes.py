"""What the axes of all plots have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from xml.etree.ElementTree import Element

from peftlab.plots.drawing import put
from peftlab.plots.scales import Scale


def level_lines(
    axes: Element,
    up: Scale,
    left: float,
    right: float,
    show: Callable[[float], str] = "{:g}".format,
) -> None:
    """A line across at each round number, which stands at its left."""
    for value in up.ticks():
        y = up(value)
        put(axes, "line", class_="grid", x1=left, x2=right, y1=y, y2=y)
        put(axes, "text", show(value), x=left - 8, y=y + 4, text_anchor="end")


def ticks_below(
    axes: Element,
    across: Scale,
    values: Iterable[float],
    bottom: float,
    show: Callable[[float], str] = "{:g}".format,
) -> None:
    """A short line at each number, which stands below it."""
    for value in values:
        x = across(value)
        put(axes, "line", class_="tick", x1=x, x2=x, y1=bottom, y2=bottom + 5)
        put(axes, "text", show(value), x=x, y=bottom + 19, text_anchor="middle")
