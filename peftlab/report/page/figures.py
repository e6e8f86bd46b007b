"""The page's figures, and the same as files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal
from xml.etree.ElementTree import Element

from peftlab.errors import InputError
from peftlab.plots.legend import Key, headed
from peftlab.records.figures import BYTES, FIGURES, SECONDS, Unit
from peftlab.records.folders import METRICS
from peftlab.records.reading import Logged, metrics
from peftlab.report.page.cost_plot import Point, cost_plot
from peftlab.report.page.curve_plot import Curve, curve_plot, thinned
from peftlab.report.page.phase_plot import PHASE_NAMES, PHASES, Phases, memory_plot, time_plot
from peftlab.report.page.runs import Judged, MethodRuns
from peftlab.report.page.search_plot import Searched, search_plot
from peftlab.verdict.entries import COSTS, FRONTS

MOST_POINTS = 200  # methods in a plot of costs: the best, and all of the front
MOST_CURVES = 40
MOST_PHASES = 24
_FINE, _COARSE = 120, 60  # points of a curve: of few curves, of many


@dataclass(frozen=True)
class CostFigure:
    """One cost axis, for a wide and for a narrow screen."""

    key: str
    name: str
    wide: Element
    narrow: Element
    left_out: Sequence[str]


@dataclass(frozen=True)
class Figures:
    """All figures; those for which nothing was measured are None or missing."""

    costs: Sequence[CostFigure]
    training: Element | None
    validation: Element | None
    curves: Sequence[MethodRuns]
    time: Element | None
    memory: Element | None
    phases: Sequence[MethodRuns]
    searched: Sequence[MethodRuns]
    search: tuple[Element, Element] | None

    def files(self) -> dict[str, Element]:
        """By the name of the file, each with a legend where names do not stand in it."""
        figures = {f"quality-{figure.key.replace('_', '-')}": figure.wide for figure in self.costs}
        curves = [Key(method.label, method.number) for method in self.curves]
        searched = [Key(method.label, method.number) for method in self.searched]
        phases = [Key(PHASE_NAMES[name], phase=i) for i, name in enumerate(PHASES)]
        phases = phases if self.search else phases[:-1]
        others = {
            "loss-training": (self.training, curves),
            "loss-validation": (self.validation, curves),
            "time": (self.time, phases),
            "memory": (self.memory, phases[:3]),
            "learning-rates": (self.search[0] if self.search else None, searched),
        }
        return figures | {
            name: headed(figure, keys)
            for name, (figure, keys) in others.items()
            if figure is not None
        }


def figures(judged: Judged, problems: list[str]) -> Figures:
    """Draw everything; a sentence is added to `problems` for each log that cannot be read."""
    drawn = judged.finished[:MOST_CURVES]
    logs = {method.label: _logs(method, problems) for method in drawn}
    with_curves = [method for method in drawn if any(logs[method.label])]
    shown = judged.finished[:MOST_PHASES]
    searches = _searches(drawn)
    return Figures(
        costs=[figure for cost in FRONTS if (figure := _cost_figure(judged, cost))],
        training=_curves(with_curves, logs, "loss", "Training loss"),
        validation=_curves(with_curves, logs, "validation_loss", "Validation loss"),
        curves=with_curves,
        time=_phases(shown, SECONDS, time_plot),
        memory=_phases(shown, BYTES, memory_plot),
        phases=shown,
        searched=[method for method in drawn if method.label in {one.label for one in searches}],
        search=(search_plot(searches), search_plot(searches, 400, 320)) if searches else None,
    )


def _cost_figure(judged: Judged, cost: str) -> CostFigure | None:
    front = set(judged.front.get(cost, ()))
    known = [m for m in judged.finished if m.quality is not None and m.costs.get(cost) is not None]
    if not known:
        return None
    chosen = [m for i, m in enumerate(known) if i < MOST_POINTS or m.label in front]
    points = [_point(judged, method, cost, method.label in front) for method in chosen]

    def draw(width: float, height: float) -> Element:
        return cost_plot(
            points,
            cost=COSTS[cost].called,
            quality=judged.quality.title,
            tick=COSTS[cost].unit.tick,
            higher_is_better=judged.higher_is_better,
            width=width,
            height=height,
        )

    left_out = [method.label for method in judged.finished if method not in chosen]
    return CostFigure(cost, COSTS[cost].called, draw(1040, 440), draw(400, 400), left_out)


def _point(judged: Judged, method: MethodRuns, cost: str, front: bool) -> Point:
    value, quality, one = method.costs[cost], method.quality, method.interval
    assert value is not None and quality is not None
    score = judged.quality.unit.said
    lines = [method.label, f"{judged.quality.title} {score(quality)}"]
    if one is not None:
        lines[-1] += f" ({one.confidence:.0%} interval {score(one.low)} to {score(one.high)})"
    lines.append(COSTS[cost].mark(method.records) + COSTS[cost].text(value))
    if front:
        lines.append("on the Pareto front")
    return Point(
        label=method.label,
        number=method.number,
        cost=value,
        quality=quality,
        low=one.low if one else None,
        high=one.high if one else None,
        front=front,
        tip="\n".join(lines),
    )


def _logs(method: MethodRuns, problems: list[str]) -> list[list[Logged]]:
    logs = []
    for run in method.runs:
        try:
            logs.append(_finite(metrics(run.folder), run.folder))
        except InputError as error:
            problems.append(f"left out of the curves: {error}")
    return logs


def _finite(log: list[Logged], folder: Path) -> list[Logged]:
    for row in log:
        if not all(map(math.isfinite, (row.get("loss", 0.0), row.get("validation_loss", 0.0)))):
            path = folder / METRICS
            raise InputError(f"{path}: the loss of step {row['step']} is not a finite number")
    return log


def _curves(
    methods: Sequence[MethodRuns],
    logs: Mapping[str, list[list[Logged]]],
    key: Literal["loss", "validation_loss"],
    name: str,
) -> Element | None:
    most = _FINE if len(methods) <= 12 else _COARSE
    curves = []
    for method in methods:
        points = _mean_curve(logs[method.label], key)
        if points:
            least, step = min((loss, step) for step, loss in points)
            tip = f"{method.label}\nlowest {least:.3f} at step {step:,.0f}"
            tip += f"\nlast {points[-1][1]:.3f} at step {points[-1][0]:,.0f}"
            curves.append(Curve(method.label, method.number, thinned(points, most), tip))
    if not curves:
        return None
    longest = max(len(curve.points) for curve in curves)
    return curve_plot(curves, name, marks=key == "validation_loss" and longest <= 25)


def _searches(methods: Sequence[MethodRuns]) -> list[Searched]:
    """One search a method; its seeds share it."""
    searches = []
    for method in methods:
        search = next((record.search for record in method.records if record.search), None)
        if search is not None:
            one = Searched(method.label, method.number, search.trials, search.rate)
            searches += [one] if one.known else []
    return searches


def _mean_curve(
    logs: Sequence[Sequence[Logged]], key: Literal["loss", "validation_loss"]
) -> list[tuple[float, float]]:
    """Means over the seeds that reached each step."""
    curve: dict[int, list[float]] = {}
    for log in logs:
        for row in log:
            if key in row:
                curve.setdefault(row["step"], []).append(row[key])
    return [(float(step), fmean(values)) for step, values in sorted(curve.items())]


def _phases(
    methods: Sequence[MethodRuns],
    unit: Unit,
    draw: Callable[[Sequence[Phases], Callable[[float], str]], Element],
) -> Element | None:
    phases = [Phases(m.label, phase_means(m, unit), _shared_phases(m, unit)) for m in methods]
    return draw(phases, unit.said) if any(one.known for one in phases) else None


def _shared_phases(method: MethodRuns, unit: Unit) -> set[str]:
    """Phases during which others used the machine."""
    own = [figure for figure in FIGURES if figure.phase and figure.unit is unit]
    return {figure.phase for figure in own if figure.shared(method.records)}


def phase_means(method: MethodRuns, unit: Unit) -> tuple[float | None, ...]:
    """Seconds or peak bytes of each phase, means over seeds; of a search, seconds alone."""
    parts = {figure.phase: figure for figure in FIGURES if figure.phase and figure.unit is unit}
    return tuple(parts[name].mean(method.records) if name in parts else None for name in PHASES)
