"""Learning curves: a line a method, means over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from peftlab.plots.axes import level_lines, ticks_below
from peftlab.plots.drawing import colour, drawing, mark, path, put, spoken, tell
from peftlab.plots.scales import Scale, fitted

LOGARITHMIC_FROM = 4.0  # losses that differ by more are drawn on a logarithmic axis


@dataclass(frozen=True)
class Curve:
    """A method's line: steps with losses; `tip` is said of the whole."""

    label: str
    number: int | None
    points: tuple[tuple[float, float], ...]
    tip: str


def curve_plot(
    curves: Sequence[Curve], name: str, *, marks: bool, width: float = 470, height: float = 300
) -> Element:
    """One picture. marks: every point is drawn and says its number (for few points)."""
    svg = drawing(width, height, f"{name} by step", "curve-plot")
    losses = [loss for curve in curves for _, loss in curve.points]
    spread = max(losses) / min(losses) if min(losses) > 0 else 1.0
    last = max(x for curve in curves for x, _ in curve.points)
    across = Scale(0, max(last, 1), 48, width - 14)
    up = fitted(losses, height - 44, 34, logarithmic=spread >= LOGARITHMIC_FROM)
    _frame(svg, across, up, name, width, height)
    for curve in sorted(curves, key=lambda one: one.number is not None):
        _line(svg, curve, across, up, marks)
    return svg


def _frame(svg: Element, across: Scale, up: Scale, name: str, width: float, height: float) -> None:
    axes = put(svg, "g", class_="axes", aria_hidden="true")
    bottom, left, right = height - 44, 48.0, width - 10
    level_lines(axes, up, left, right)
    ticks_below(axes, across, across.ticks(), bottom, "{:,.0f}".format)
    put(axes, "line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom)
    said = f"{name}, nats per token" + (" (logarithmic)" if up.logarithmic else "")
    put(axes, "text", said, class_="name", x=8.0, y=16.0)
    put(axes, "text", "optimiser steps →", class_="name", x=right, y=height - 6, text_anchor="end")


def _line(svg: Element, curve: Curve, across: Scale, up: Scale, marks: bool) -> None:
    places = [(across(x), up(y)) for x, y in curve.points]
    group = spoken(svg, curve.tip, f"curve {colour(curve.number)}", method=curve.label)
    if len(places) > 1:
        put(group, "path", class_="target", d=path(places))
        put(group, "path", class_="stroke", d=path(places))
    if marks:
        for (x, y), (step, loss) in zip(places, curve.points, strict=True):
            dot = mark(group, curve.number, x, y, 3.4)
            tell(dot, f"{curve.label}\nstep {step:,.0f}: {loss:.3f}")


def thinned(points: Sequence[tuple[float, float]], most: int) -> tuple[tuple[float, float], ...]:
    """At most so many points, each the mean of its neighbours."""
    width = max(math.ceil(len(points) / most), 1)
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return tuple(
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    )
