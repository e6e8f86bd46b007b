"""A study's figure: one panel for each task and quantity, in as many columns as there is room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element

from peftlab.plots.axes import level_lines
from peftlab.plots.drawing import LETTER, colour, drawing, mark, path, put, spoken
from peftlab.plots.labels import Box, Named, put_names
from peftlab.plots.legend import Key, fitting, headed
from peftlab.plots.palette import COLOURED
from peftlab.plots.scales import Scale, fitted
from peftlab.records.figures import short
from peftlab.study.result import Level, Panel, Point, Result
from peftlab.study.words import LOSS, shown

WIDE, HIGH, NARROW = 520.0, 360.0, 400.0
_TOP, _BOTTOM, _LEFT, _RIGHT = 40.0, 52.0, 56.0, 14.0
_TICK = 30.0  # least distance between two ticks of numbers
_FAR = 4.0  # losses that differ by more are drawn on a logarithmic axis
_DODGE = 12.0  # between series that share a place which is a name

Numbers = Mapping[str, int | None]


def figure(result: Result, narrow: bool = False) -> Element:
    """The whole picture; narrow: one column, for phones."""
    panels, wide = result.panels, NARROW if narrow else WIDE
    tasks = len({panel.task for panel in panels})
    columns = 1 if narrow else min(2, max(1, len(panels) // tasks) if tasks > 1 else len(panels))
    numbers = colours(result)
    rows = -(-len(panels) // columns)
    svg = drawing(columns * wide, rows * HIGH, result.title, "study-plot")
    for i, panel in enumerate(panels):
        place = f"translate({wide * (i % columns):g} {HIGH * (i // columns):g})"
        _panel(put(svg, "g", transform=place), panel, numbers, wide, tasks > 1)
    return headed(svg, [Key(name, number) for name, number in numbers.items()])


def colours(result: Result) -> dict[str, int | None]:
    """The number of each series' colour; None for those beyond the last colour."""
    return {name: i if i < COLOURED else None for i, name in enumerate(_series(result.panels))}


def _series(panels: Sequence[Panel]) -> list[str]:
    return list(dict.fromkeys(point.series for panel in panels for point in panel.points))


def _panel(svg: Element, panel: Panel, numbers: Numbers, width: float, several: bool) -> None:
    values = [v for p in panel.points for v in (p.value, p.low, p.high, *p.seeds) if v is not None]
    values += [level.value for level in panel.levels]
    up = fitted(values, HIGH - _BOTTOM, _TOP, logarithmic=_spread(panel, values))
    across = _across(panel, width)
    _frame(svg, panel, across, up, width, several)
    taken = _levels(svg, panel, up, width)
    shift = _shifts(panel)
    lines: list[Box] = []
    marks: list[Named] = []
    for name, points in panel.series().items():
        number = numbers[name]
        group = put(svg, "g", class_=f"curve {colour(number)}", data_method=name)
        places = [(across(point.x) + shift.get(name, 0.0), up(point.value)) for point in points]
        once = len({point.x for point in points}) == len(points) > 1
        if panel.connected and once:
            put(group, "path", class_="stroke", d=path(places))
            lines += _along(places)
        for point, (x, y) in zip(points, places, strict=True):
            taken += _point(group, panel, point, number, x, y, up)
            if point.name and not panel.axis.names:
                marks.append(Named(point.name, number, x, y))
    taken += lines
    _level_names(svg, panel, up, width, taken)
    put_names(svg, marks, taken, Box(_LEFT, _TOP - 12, width, HIGH - _BOTTOM))


def _across(panel: Panel, width: float) -> Scale:
    left, right = _LEFT + 14, width - _RIGHT - 14
    if panel.axis.names:
        last = len(panel.axis.names) - 1
        margin = (right - left) / (2 * last + 2)
        return Scale(0, max(last, 1e-9), left + margin, right - margin)
    return fitted([point.x for point in panel.points], left - 8, right + 8)


def _shifts(panel: Panel) -> dict[str, float]:
    """Where places are names and two series share one, series stand side by side."""
    names = list(panel.series())
    alone = len({point.x for point in panel.points}) == len(panel.points)
    if alone or not panel.axis.names:
        return {}
    return {name: _DODGE * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}


def _frame(
    svg: Element, panel: Panel, across: Scale, up: Scale, width: float, several: bool
) -> None:
    bottom, right = HIGH - _BOTTOM, width - _RIGHT
    axes = put(svg, "g", class_="axes", aria_hidden="true")
    digits = 2 if up.high - up.low > 0.08 else 3
    plain = up.high > 2 or up.logarithmic
    level_lines(axes, up, _LEFT, right, ("{:g}" if plain else f"{{:.{digits}f}}").format)
    put(axes, "line", class_="axis", x1=_LEFT, x2=right, y1=bottom, y2=bottom)
    if panel.axis.names:
        _name_ticks(axes, panel.axis.names, across, bottom)
    else:
        _number_ticks(axes, panel, across, bottom)
    said = f"{panel.axis.name} (logarithmic)" if across.logarithmic else panel.axis.name
    if LETTER * (len(said) + 2) > width:  # ticks show as well that it is
        said = panel.axis.name
    arrow = "" if panel.axis.names else " →"
    place = {"x": right, "y": HIGH - 8.0, "text_anchor": "end"}
    put(axes, "text", fitting(said + arrow, width - 16), class_="name", **place)
    better = {True: "↑ ", False: "↓ ", None: ""}[panel.higher_is_better]
    rest = f" on {panel.task}" * several + " (logarithmic)" * up.logarithmic
    title = better + fitting(panel.quantity, width - 16 - LETTER * len(better + rest)) + rest
    put(axes, "text", fitting(title, width - 10), class_="name", x=8.0, y=_TOP - 18)


def _number_ticks(axes: Element, panel: Panel, across: Scale, bottom: float) -> None:
    """At the points themselves where these are few, else at round numbers."""
    places = sorted({point.x for point in panel.points})
    round_ones = len(places) > 12 or any(place != round(place) for place in places)
    wanted = across.ticks(5) if round_ones else places
    last = float("-inf")
    for value in wanted:
        x, text = across(value), short(float(f"{value:.3g}"))
        put(axes, "line", class_="tick", x1=x, x2=x, y1=bottom, y2=bottom + 5)
        if x - last >= max(_TICK, LETTER * len(text)):
            put(axes, "text", text, x=x, y=bottom + 19, text_anchor="middle")
            last = x


def _name_ticks(axes: Element, names: Sequence[str], across: Scale, bottom: float) -> None:
    """Names under their places; on two lines in turn where one is too short for them."""
    apart = across(1.0) - across(0.0) if len(names) > 1 else WIDE
    crowded = LETTER * max(map(len, names)) > apart
    for i, name in enumerate(names):
        y = bottom + (32 if crowded and i % 2 else 17)
        said = fitting(name, 2 * apart - 8 if crowded else apart)
        put(axes, "text", said, x=across(float(i)), y=y, text_anchor="middle")


def _spread(panel: Panel, values: Sequence[float]) -> bool:
    """Losses that differ much are drawn on a logarithmic axis, as in learning curves."""
    return panel.metric == LOSS and min(values) > 0 and max(values) >= _FAR * min(values)


def _along(places: Sequence[tuple[float, float]]) -> list[Box]:
    """Boxes along a line, which names do not cover."""
    boxes = []
    for (x, y), (u, v) in pairwise(places):
        steps = max(1, int(abs(u - x) // 12))
        for i in range(steps):
            top, bottom = sorted((y + (v - y) * i / steps, y + (v - y) * (i + 1) / steps))
            boxes.append(
                Box(x + (u - x) * i / steps, top - 1, x + (u - x) * (i + 1) / steps, bottom + 1)
            )
    return boxes


def _levels(svg: Element, panel: Panel, up: Scale, width: float) -> list[Box]:
    """Lines across the panel; returns what they take."""
    taken = []
    for level in panel.levels:
        y, tip = up(level.value), _level_tip(panel, level)
        group = spoken(svg, tip, "level")
        put(group, "path", class_="target", d=path([(_LEFT, y), (width - _RIGHT, y)]))
        put(group, "line", class_="front-line", x1=_LEFT, x2=width - _RIGHT, y1=y, y2=y)
        taken.append(Box(_LEFT, y - 1, width - _RIGHT, y + 1))
    return taken


def _level_names(svg: Element, panel: Panel, up: Scale, width: float, taken: list[Box]) -> None:
    """Above or below each level, where nothing else is, the right end first.

    Where there is no such place, a name lies on lines and marks, but never on another name.
    """
    layer = put(svg, "g", class_="names", aria_hidden="true")
    names: list[Box] = []
    for level in panel.levels:
        places = _beside(up(level.value), LETTER * len(level.name), width)
        apart = [box for box in places if not any(box.meets(other) for other in names)]
        free = [box for box in apart if not any(box.meets(other) for other in taken)]
        for box in (free or apart)[:1]:
            names.append(box)
            put(layer, "text", level.name, class_="level-name", x=box.left, y=box.bottom - 3)
    taken += names


def _beside(y: float, wide: float, width: float) -> list[Box]:
    """Where the name of a level at this height may stand, the best first."""
    right, left = width - _RIGHT - wide, _LEFT + 4
    between = [right - (right - left) * i / 12 for i in range(1, 12)]
    places = [
        Box(x, y + dy - 11, x + wide, y + dy + 3)
        for x in (right, left, *between)
        for dy in (-6.0, 15.0)
    ]
    return [box for box in places if box.top > _TOP - 14 and box.bottom < HIGH - _BOTTOM]


def _point(
    group: Element, panel: Panel, point: Point, number: int | None, x: float, y: float, up: Scale
) -> list[Box]:
    made = spoken(group, _tip(panel, point), "point on-front")
    taken = [Box(x - 6, y - 6, x + 6, y + 6)]
    if point.low is not None and point.high is not None:
        low, high = up(point.low), up(point.high)
        put(made, "line", class_="interval", x1=x, x2=x, y1=low, y2=high)
        taken.append(Box(x - 3, high, x + 3, low))
    if len(point.seeds) > 1:
        for value in point.seeds:
            put(made, "circle", class_="seed", cx=x + 7, cy=up(value), r=1.8)
    put(made, "circle", class_="target", cx=x, cy=y, r=11)
    mark(made, number, x, y, 4.6)
    return taken


def _tip(panel: Panel, point: Point) -> str:
    where = point.name or f"{panel.axis.name}: {point.x:,.6g}"
    lines = [point.series, where, _valued(panel, point)]
    if point.label != point.series:
        lines.append(point.label)
    if point.standing in ("below", "tied", "undecided"):
        said = {"below": "below the best", "tied": "level with the best"}
        lines.append(said.get(point.standing, "not decided against the best"))
    if len(point.seeds) > 1:
        lines.append("seeds: " + ", ".join(shown(panel, value) for value in point.seeds))
    return "\n".join(lines)


def _level_tip(panel: Panel, level: Level) -> str:
    return f"{level.name}\n{_valued(panel, level)}"


def _valued(panel: Panel, one: Point | Level) -> str:
    text = f"{panel.quantity} {shown(panel, one.value)}"
    if one.low is None or one.high is None:
        return text
    return f"{text} (95% interval {shown(panel, one.low)} to {shown(panel, one.high)})"
