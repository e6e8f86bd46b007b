"""How many training examples each method needs.

Li & Liang 2021, arXiv:2101.00190, section 6.3 (low-data settings). Of one seed, fewer examples are
among more. Steps are the same for all, so that few examples are seen often; the validation split,
by which the best step is kept, is never larger than the training split.
"""

from __future__ import annotations

from typing import ClassVar

from peftlab.study import words
from peftlab.study.base import Axis, Panel, Setting, Study, Variant, chosen, whole
from peftlab.study.common import ASKED, asked, methods
from peftlab.study.result import Point
from peftlab.tasks import Task

_ROWS = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000)


class Data(Study):
    """Methods by the number of training examples."""

    name: ClassVar = "data"
    title: ClassVar = "How many training examples does each method need?"
    source: ClassVar = "Li & Liang 2021, section 6.3"
    axis: ClassVar = Axis("training examples")
    takes: ClassVar = frozenset({"values", "methods"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        count = len(task.train)
        usual = (*(rows for rows in _ROWS if rows < count), count)
        places = chosen(setting, usual, least=1, most=count, what="a number of examples")
        rows = whole(places, "a number of examples")
        return [Variant(series=ASKED, method=asked(task))] + [
            Variant(series=method.label, method=method, x=number, rows=number)
            for number in rows
            for method in methods(setting, "prompt_tuning,prefix_tuning,lora,full")
        ]

    def words(self, panel: Panel) -> list[str]:
        places = sorted({point.x for point in panel.points})
        ends = [places[0], places[-1]] if len(places) > 1 else places
        told = []
        for x in ends:
            own = [point for point in panel.points if point.x == x]
            text = words.ranking(panel, own, lambda point: point.series)
            told.append(f"With {x:,.0f} examples: {text[0].lower()}{text[1:]}")
        return told + [words.climb(panel, series, _at) for series in panel.series()]


def _at(point: Point) -> str:
    return f"{point.x:,.0f} example{'s' * (point.x != 1)}"


STUDY = Data()
