"""What a study has found: panels of points, levels and words. `study.json` holds all of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from peftlab.errors import InputError, refusing
from peftlab.files import make_folder, read_json, write_json
from peftlab.printable import csv_cell

VERSION = 1
NAME = "study.json"

Standing = Literal["best", "tied", "undecided", "below", "untested"]
"""Against the best point of the same series: shown to be tied with it, shown to be below it (of
the trained models at hand, where there is one seed), or neither."""


@dataclass(frozen=True)
class Axis:
    """What a figure's places are. names: of the places 0, 1, … where these are no numbers."""

    name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One variant in one panel.

    Attributes:
        label: the method as one would type it.
        value: mean over seeds, which are in `seeds`. low, high: its 95 % interval.
        trainable: numbers that were trained.
    """

    series: str
    x: float
    name: str
    label: str
    value: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]
    standing: Standing = "untested"
    trainable: int | None = None


@dataclass(frozen=True)
class Level:
    """What is drawn across the whole panel, for comparison."""

    name: str
    label: str
    value: float
    low: float | None
    high: float | None
    trainable: int | None = None


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: a quantity of one task against the places.

    Attributes:
        metric: whose name the quantity has; "" where it is no score. quantity: its name.
        higher_is_better: None where neither is.
        words: what it shows.
    """

    task: str
    metric: str
    quantity: str
    higher_is_better: bool | None
    axis: Axis
    connected: bool
    points: tuple[Point, ...]
    levels: tuple[Level, ...] = ()
    words: tuple[str, ...] = ()

    def series(self) -> dict[str, list[Point]]:
        """The points of each series by rising place, in the order in which the series come."""
        series: dict[str, list[Point]] = {}
        for point in self.points:
            series.setdefault(point.series, []).append(point)
        return {name: sorted(own, key=lambda p: p.x) for name, own in series.items()}

    def best(self, points: Sequence[Point]) -> Point:
        """The best of some points."""
        sign = -1 if self.higher_is_better is False else 1
        return max(points, key=lambda point: sign * point.value)


@dataclass(frozen=True)
class Result:
    """A study's outcome.

    Attributes:
        facts: names with values: base, tasks, budget, seeds.
        command: that makes it again. note: what must be said whatever came out.
        problems: what is missing, and why.
        runs: folders of the runs, relative to the study's parent.
    """

    study: str
    title: str
    source: str
    note: str
    panels: tuple[Panel, ...]
    facts: tuple[tuple[str, str], ...]
    command: str = ""
    problems: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    caution: str = ""
    version: int = VERSION

    @property
    def words(self) -> list[str]:
        """All sentences, each once."""
        return list(dict.fromkeys(text for panel in self.panels for text in panel.words))

    def write(self, folder: Path) -> None:
        """Write `study.json`; it appears whole or not at all."""
        make_folder(folder)
        write_json(folder / NAME, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Result:
        """The result in a study's folder.

        Raises:
            InputError: none, a damaged one, or one of another version.
        """
        path = folder / NAME
        values = read_json(path)
        if values.get("version") != VERSION:
            raise InputError(
                f"{path} has version {values.get('version')!r}; this peftlab reads {VERSION}"
            )
        with refusing(f"{path} is damaged: "):
            return TypeAdapter(cls).validate_python(values)


def as_csv(result: Result) -> str:
    """One line a point or level."""
    names = (
        "study", "task", "quantity", "series", "x", "name", "method", "value", "low", "high",
        "seeds", "standing", "trainable",
    )  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for panel in result.panels:
        about = (result.study, panel.task, panel.quantity)
        for p in panel.points:
            place = (p.series, p.x, p.name, p.label, p.value, p.low, p.high)
            line = (*about, *place, len(p.seeds), p.standing, p.trainable)
            writer.writerow(map(csv_cell, line))
        for level in panel.levels:
            own = (level.name, "", "", level.label, level.value, level.low, level.high)
            writer.writerow(map(csv_cell, (*about, *own, "", "", level.trainable)))
    return text.getvalue()
