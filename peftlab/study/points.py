"""From runs to the points of a panel: means over seeds, 95 % intervals, and how each point stands
against the best of its series. Intervals and tests are those of a comparison (docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import ClassVar, Protocol

import numpy as np

from peftlab.errors import InputError
from peftlab.records import figures, folders, reading
from peftlab.records.record import Record
from peftlab.study.result import Axis, Level, Panel, Point, Standing
from peftlab.study.setting import Context, Made
from peftlab.study.words import LOSS
from peftlab.verdict.components import MIN_EXAMPLES, Array, Runs, estimate
from peftlab.verdict.measured import read_entries
from peftlab.verdict.statistics import Interval, absolute_margin, compare_pairs, intervals

_MARGIN = "2%"  # of the best of a series: a difference that does not matter


class Figure(Protocol):
    """What of a study its panels hang on, see `Study`."""

    name: ClassVar[str]
    axis: ClassVar[Axis]
    connected: ClassVar[bool]
    places_are_names: ClassVar[bool]

    def place(self, made: Made) -> float | None: ...
    def words(self, panel: Panel) -> list[str]: ...


def drawn(metric: str) -> figures.Figure:
    """What a panel shows: the test loss, or a metric."""
    return figures.named(figures.LAST_LOSS) if metric == LOSS else figures.scored(metric)


def panel(study: Figure, context: Context, metric: str) -> Panel:
    """The usual panel: a metric of every variant against its place.

    Raises:
        InputError: no run that it could show.
    """
    shown = [made for made in context.made if made.variant.task is None and made.runs]
    bounds = _intervals(shown, metric, context.problems)
    points, levels = [], []
    for i, made in enumerate(shown):
        point = _point(study, made, metric, bounds.get(i))
        if point is not None:
            points.append(point)
        elif made.variant.x is None:
            levels.append(_level(made, metric, bounds.get(i)))
    if not points:
        raise InputError(f"{study.name}: no run on {context.task.name} could be used")
    made_panel = Panel(
        task=context.task.name,
        metric=metric,
        quantity=drawn(metric).title,
        higher_is_better=not drawn(metric).lower,
        axis=_axis(study, points),
        connected=study.connected and not study.places_are_names,
        points=tuple(points),
        levels=tuple(levels),
    )
    judged = _judged(made_panel, study, shown)
    return replace(judged, words=tuple(study.words(judged)))


def _axis(study: Figure, points: Sequence[Point]) -> Axis:
    if not study.places_are_names:
        return study.axis
    names = {point.x: point.name for point in points}
    return Axis(study.axis.name, tuple(names.get(float(i), "") for i in range(int(max(names)) + 1)))


def _point(study: Figure, made: Made, metric: str, own: Interval | None) -> Point | None:
    x, values = study.place(made), _values(made, metric)
    if x is None:
        return None
    return Point(
        series=made.variant.series,
        x=x,
        name=made.variant.name,
        label=made.variant.method.label,
        value=fmean(values),
        low=own.low if own else None,
        high=own.high if own else None,
        seeds=tuple(values),
        trainable=made.runs[0].record.parameters.trainable,
    )


def _level(made: Made, metric: str, own: Interval | None) -> Level:
    return Level(
        name=made.variant.series,
        label=made.variant.method.label,
        value=fmean(_values(made, metric)),
        low=own.low if own else None,
        high=own.high if own else None,
        trainable=made.runs[0].record.parameters.trainable,
    )


def _values(made: Made, metric: str) -> list[float]:
    values = [drawn(metric).of(kept.record) for kept in made.runs]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        folder = made.runs[values.index(None)].folder
        raise InputError(f"{folder} has no {metric}; delete it to have the run made again")
    return known


def runs_of(made: Made, metric: str, name: str) -> Runs:
    """A variant's runs as statistics take them.

    Raises:
        InputError: predictions that are damaged or missing.
    """
    if metric == LOSS:
        rows = [_losses(kept.folder) for kept in made.runs]
        return Runs(name, np.stack(rows), aggregate=_per_token, bounds=(0.0, math.inf))
    groups: dict[str, dict[Path, Record]] = {}  # seeds may have drawn different training rows
    for kept in made.runs:
        groups.setdefault(kept.record.task.fingerprint, {})[kept.folder] = kept.record
    several = [runs for own in groups.values() if (runs := read_entries(own, metric)[0].runs)]
    return replace(
        several[0],
        name=name,
        scores=np.concatenate([runs.scores for runs in several]),
        deterministic=several[0].deterministic and len(several) == 1,
    )


def _losses(folder: Path) -> Array:
    """[examples, 2]: the sum of losses, and of how many tokens."""
    rows = reading.predictions(folder)
    try:
        sums = [[sum(row["loss_sums"]), sum(row["loss_tokens"])] for row in rows]
    except KeyError as error:
        raise InputError(f"{folder / folders.PREDICTIONS} has no {error}") from error
    return np.array(sums, dtype=np.float64)


def _per_token(rows: Array) -> float:
    sums = rows.sum(axis=0)
    return float(sums[0] / sums[1])


def _intervals(shown: Sequence[Made], metric: str, problems: list[str]) -> dict[int, Interval]:
    """By number of the variant; none where there are too few test examples."""
    rows = min(made.runs[0].record.task.test_rows for made in shown) if shown else 0
    if rows < MIN_EXAMPLES:
        said = f"{rows} test examples are too few for intervals; {MIN_EXAMPLES} are the least."
        if said not in problems:
            problems.append(said)
        return {}
    runs = [runs_of(made, metric, str(i)) for i, made in enumerate(shown)]
    return dict(enumerate(intervals(estimate(runs))))


def _judged(judged: Panel, study: Figure, shown: Sequence[Made]) -> Panel:
    """The panel with each point's standing against the best of its series."""
    if any(point.low is None for point in judged.points):
        return judged
    of = [made for made in shown if study.place(made) is not None]
    points = list(judged.points)
    for own in judged.series().values():
        numbers = [i for i, point in enumerate(points) if point.series == own[0].series]
        standings = _standings(
            [points[i] for i in numbers], [of[i] for i in numbers], judged.metric, judged
        )
        for i, standing in zip(numbers, standings, strict=True):
            points[i] = replace(points[i], standing=standing)
    return replace(judged, points=tuple(points))


def _standings(
    points: Sequence[Point], made: Sequence[Made], metric: str, own: Panel
) -> list[Standing]:
    best = points.index(own.best(points))
    if len(points) == 1:
        return ["best"]
    estimates = estimate([runs_of(one, metric, str(i)) for i, one in enumerate(made)])
    pairs = compare_pairs(
        estimates,
        margin=absolute_margin(_MARGIN, points[best].value),
        higher_is_better=bool(own.higher_is_better),
        plan=False,
    )
    standings: list[Standing] = ["best"] * len(points)
    for pair in pairs:
        ends = {int(pair.first), int(pair.second)}
        if best in ends:
            (other,) = ends - {best}
            outcome = pair.among_models or pair.outcome
            standings[other] = "below" if outcome == "better" else outcome
    return standings
