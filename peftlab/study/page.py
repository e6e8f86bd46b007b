"""A study's folder: the figure as SVG and PNG, its numbers as csv, and a page that holds all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftlab.files import make_folder, write_bytes, write_text
from peftlab.plots import png
from peftlab.plots.drawing import file_of
from peftlab.report.page.frame import file_text, filled
from peftlab.study.plot import colours, figure
from peftlab.study.result import Level, Panel, Point, Result, as_csv
from peftlab.study.words import shown

PAGE, SVG, PNG, CSV = "study.html", "figure.svg", "figure.png", "study.csv"


def write(folder: Path, result: Result) -> list[Path]:
    """Write page, figure and table; returns their paths, without PNG where nothing can draw it."""
    drawn = file_of(figure(result), file_text("plots.css"), result.title)
    make_folder(folder)
    write_text(folder / PAGE, render(result))
    write_text(folder / SVG, drawn)
    write_text(folder / CSV, as_csv(result))
    made = [folder / name for name in (PAGE, SVG, CSV)]
    if png.available():
        write_bytes(folder / PNG, png.of_svg(drawn))
        made.append(folder / PNG)
    return made


def render(result: Result) -> str:
    """The page as text."""
    numbers = colours(result)
    values = {
        "result": result,
        "facts": dict(result.facts),
        "wide": figure(result),
        "narrow": figure(result, narrow=True),
        "tables": [_table(panel, numbers) for panel in result.panels],
        "seeds": max(len(point.seeds) for panel in result.panels for point in panel.points),
    }
    return filled("study.html", values)


def _table(panel: Panel, numbers: dict[str, int | None]) -> dict[str, Any]:
    points = [
        _row(panel, point, numbers[point.series])
        for own in panel.series().values()
        for point in own
    ]
    return {
        "quantity": panel.quantity,
        "task": panel.task,
        "axis": panel.axis.name,
        "first": "descending" if panel.higher_is_better else "ascending",
        "rows": points + [_row(panel, level, -1) for level in panel.levels],
    }


def _row(panel: Panel, one: Point | Level, number: int | None) -> dict[str, Any]:
    point = one if isinstance(one, Point) else None
    low, high = one.low, one.high
    return {
        "series": point.series if point else one.name,
        "label": one.label,
        "number": number,
        "x": point.x if point else None,
        "where": "" if point is None else _where(panel, point),
        "value": one.value,
        "text": shown(panel, one.value),
        "interval": ""
        if low is None or high is None
        else f"{shown(panel, low)} – {shown(panel, high)}",
        "standing": point.standing if point and point.standing != "untested" else "",
        "trainable": one.trainable,
    }


def _where(panel: Panel, point: Point) -> str:
    if panel.axis.names:
        return point.name
    return f"{point.x:,.6g}" + (f" ({point.name})" if point.name else "")
