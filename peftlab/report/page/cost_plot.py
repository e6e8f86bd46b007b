"""Quality against a cost, with intervals and the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element

from peftlab.plots.axes import level_lines, ticks_below
from peftlab.plots.drawing import colour, drawing, mark, path, put, spoken
from peftlab.plots.labels import Box, Named, put_names
from peftlab.plots.scales import Scale, fitted
from peftlab.units import size

LABELLED = 12  # with more methods, names stand at the front's alone
FOCUSABLE = 40  # with more, the keyboard stops at the front's alone, and so does a wide target


@dataclass(frozen=True)
class Point:
    """A method. number: of its colour; low, high: of its interval; front: it is on the front."""

    label: str
    number: int | None
    cost: float
    quality: float
    low: float | None
    high: float | None
    front: bool
    tip: str


def cost_plot(
    points: Sequence[Point],
    *,
    cost: str,
    quality: str,
    tick: Callable[[float], str],
    higher_is_better: bool,
    width: float = 900,
    height: float = 430,
) -> Element:
    """One picture; `cost` and `quality` are the axes' names, `tick` writes a cost."""
    svg = drawing(width, height, f"{quality} against {cost}", "cost-plot")
    levels = [v for p in points for v in (p.quality, p.low, p.high) if v is not None]
    across = fitted([point.cost for point in points], 62, width - 24, binary=tick is size)
    up = fitted(levels, height - 50, 34, logarithmic=False)
    _frame(svg, across, up, cost, quality, tick, (width, height), higher_is_better)
    stairs = _front(svg, [point for point in points if point.front], across, up, width - 24)
    few = len(points) <= LABELLED
    for point in sorted(points, key=lambda p: (p.front, p.number is not None)):
        reachable = point.front or len(points) <= FOCUSABLE
        _draw(svg, point, across(point.cost), up, reachable)
    named = [point for point in points if few or point.front]
    marks = [
        Named(point.label, point.number, across(point.cost), up(point.quality))
        for point in sorted(named, key=lambda p: not p.front)
    ]
    taken, bars = _taken(points, across, up)
    put_names(svg, marks, taken, Box(50, 18, width, height), [*stairs, *bars])
    return svg


def _frame(
    svg: Element,
    across: Scale,
    up: Scale,
    cost: str,
    quality: str,
    tick: Callable[[float], str],
    size: tuple[float, float],
    higher_is_better: bool,
) -> None:
    width, height = size
    bottom, left, right = height - 50, 50.0, width - 12
    axes = put(svg, "g", class_="axes", aria_hidden="true")
    digits = 2 if up.high - up.low > 0.08 else 3
    level_lines(axes, up, left, right, (f"{{:.{digits}f}}" if up.high <= 2 else "{:g}").format)
    ticks_below(axes, across, across.ticks(7 if width > 600 else 4), bottom, tick)
    if across.zero is None:
        put(axes, "line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom)
    else:  # the axis is broken between 0 and the logarithmic part
        gap = (across.zero + across.start) / 2 + 2
        put(axes, "line", class_="axis", x1=left, x2=gap - 3, y1=bottom, y2=bottom)
        put(axes, "line", class_="axis", x1=gap + 3, x2=right, y1=bottom, y2=bottom)
        for x in (gap - 3, gap + 3):
            put(axes, "line", class_="axis", x1=x - 2, x2=x + 2, y1=bottom + 5, y2=bottom - 5)
    said = f"{cost} (logarithmic)" if across.logarithmic else cost
    put(axes, "text", f"{said} →", class_="name", x=right, y=height - 8, text_anchor="end")
    arrow = "↑" if higher_is_better else "↓"
    put(axes, "text", f"{arrow} {quality}, better", class_="name", x=8.0, y=16.0)


def _front(svg: Element, points: list[Point], across: Scale, up: Scale, right: float) -> list[Box]:
    """The best that can be had for at most that cost: a stair. Returns where its steps are."""
    corners: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: p.cost):
        x, y = across(point.cost), up(point.quality)
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    if corners:
        corners.append((right, corners[-1][1]))
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
        put(svg, "path", class_="front-line", d=d, aria_hidden="true")
    steps = pairwise(corners)
    return [Box(x, min(y, v) - 1, u, max(y, v) + 1) for (x, y), (u, v) in steps]


def _taken(points: Sequence[Point], across: Scale, up: Scale) -> tuple[list[Box], list[Box]]:
    """Where marks are, and where intervals."""
    marks, bars = [], []
    for point in points:
        x, y = across(point.cost), up(point.quality)
        marks.append(Box(x - 6, y - 6, x + 6, y + 6))
        if point.low is not None and point.high is not None:
            top, bottom = sorted((up(point.low), up(point.high)))
            bars.append(Box(x - 3, top, x + 3, bottom))
    return marks, bars


def _draw(svg: Element, point: Point, x: float, up: Scale, reachable: bool) -> None:
    kinds = ["point", colour(point.number), "on-front" if point.front else "off-front"]
    group = spoken(svg, point.tip, " ".join(kinds), method=point.label, reachable=reachable)
    if point.low is not None and point.high is not None:
        low, high = up(point.low), up(point.high)
        ends = (path([(x - 3, y), (x + 3, y)]) for y in (low, high))
        put(group, "path", class_="interval", d=path([(x, low), (x, high)]) + "".join(ends))
    y = up(point.quality)
    if reachable:
        put(group, "circle", class_="target", cx=x, cy=y, r=14)
    mark(group, point.number, x, y, 5.5)
