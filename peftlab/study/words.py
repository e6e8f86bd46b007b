"""Sentences about panels, made from their numbers and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peftlab.records import figures
from peftlab.study.result import Panel, Point
from peftlab.verdict.numbers import listed, percent

At = Callable[[Point], str]
LOSS = "loss"
"""What a panel's metric is called that shows the test loss."""


def shown(panel: Panel, value: float) -> str:
    """A number of the panel with the digits of what it shows."""
    if panel.metric == LOSS:
        return figures.named(figures.LAST_LOSS).unit.said(value)
    return figures.scored(panel.metric).unit.said(value)


def head(panel: Panel) -> str:
    """How a sentence says what it is about."""
    return f"On {panel.task}, {panel.quantity}"


def climb(panel: Panel, series: str, at: At) -> str:
    """How a series goes from its first place to its best, and from where on it is level with that.

    "Level" means that the test could not show it to be below the best.
    """
    points = panel.series()[series]
    first, last, best = points[0], points[-1], panel.best(points)
    about = f"{head(panel)} of {series}"
    if len(points) == 1:
        return f"{about} is {shown(panel, first.value)} at {at(first)}."
    if best is first:
        text = f"{about} is best at {at(first)} already ({shown(panel, first.value)}); "
        return text + f"{at(last)} gives {shown(panel, last.value)}{_level(points, at)}."
    end = ", the largest tried" if best is last else ""
    return (
        f"{about} goes from {shown(panel, first.value)} at {at(first)} to "
        f"{shown(panel, best.value)} at {at(best)}{end}{_level(points, at)}."
    )


def _level(points: Sequence[Point], at: At) -> str:
    if any(point.standing == "untested" for point in points):
        return ""
    fair = [point.standing != "below" for point in points]
    if all(fair):
        return "; none of the others is shown to be below it"
    if sum(fair) == 1:
        return "; all others are shown to be below it"
    start = fair.index(True)
    if all(fair[start:]):
        return f"; from {at(points[start])} on none is shown to be below it"
    names = [at(point) for point in points if point.standing in ("tied", "undecided")]
    return f"; not shown to be below it: {listed(names)}"


def against(panel: Panel, level: str) -> str:
    """The best of each series in words of a level: "prompt_tuning reaches 97 % of it"."""
    level_point = next((one for one in panel.levels if one.name == level), None)
    if level_point is None or level_point.value <= 0:
        return ""
    parts = []
    for name, points in panel.series().items():
        best = panel.best(points)
        share = f" ({percent(best.value / level_point.value)} of it)" * bool(panel.higher_is_better)
        parts.append(f"{name} {shown(panel, best.value)}{share}")
    which = "the best of each series" if len(parts) > 1 else "the best"
    return (
        f"{head(panel)} of {level} is {shown(panel, level_point.value)}; {which}: {listed(parts)}."
    )


def ranking(panel: Panel, points: Sequence[Point], at: At, of: str = "") -> str:
    """Best and worst of some points, which are `of` something."""
    best = panel.best(points)
    rest = [point for point in points if point is not best]
    about = f"{head(panel)} of {of}" if of else head(panel)
    if not rest:
        return f"{about} is {shown(panel, best.value)} with {at(best)}."
    sign = 1 if panel.higher_is_better else -1
    worst = min(rest, key=lambda point: sign * point.value)
    return (
        f"{about} is best with {at(best)} ({shown(panel, best.value)}) and worst with "
        f"{at(worst)} ({shown(panel, worst.value)})."
    )
