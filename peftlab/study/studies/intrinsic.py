"""The dimension in which fine-tuning reaches 90 % of its quality.

Li et al. 2018, arXiv:1804.08838, section 2; Aghajanyan et al. 2021, arXiv:2012.13255, figure 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from peftlab.study import words
from peftlab.study.base import (
    Axis,
    Context,
    Level,
    Panel,
    Setting,
    Study,
    Variant,
    chosen,
    whole,
)
from peftlab.study.common import FULL, changed, levels, methods, place
from peftlab.tasks import Task

_DIMENSIONS = (10, 100, 1000, 10_000, 100_000)
_SHARE = 0.9
NINETY = "90 % of full"


class Intrinsic(Study):
    """Training in a random subspace, by its dimension."""

    name: ClassVar = "intrinsic"
    title: ClassVar = "In how many dimensions does fine-tuning happen?"
    source: ClassVar = "Li et al. 2018; Aghajanyan et al. 2021, figure 1"
    axis: ClassVar = Axis("dimension of the random subspace")
    takes: ClassVar = frozenset({"values", "methods"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        most = setting.shape.size
        places = chosen(setting, _DIMENSIONS, least=1, most=most, what="a dimension")
        return levels(task) + [
            Variant(series=method.label, method=changed(method, dimension=number), x=number)
            for method in methods(setting, "intrinsic")
            for number in whole(places, "a dimension")
        ]

    def panels(self, context: Context) -> list[Panel]:
        return [_with_ninety(panel) for panel in super().panels(context)]

    def words(self, panel: Panel) -> list[str]:
        told = [words.climb(panel, name, place("dimension")) for name in panel.series()]
        full = next((level for level in panel.levels if level.name == FULL), None)
        if full is None or not panel.higher_is_better:
            return told
        wanted = _SHARE * full.value
        for name, points in panel.series().items():
            enough = [point for point in points if point.value >= wanted]
            about = f"{words.head(panel)} of {name}"
            aim = f"90 % of full fine-tuning's ({words.shown(panel, wanted)})"
            told.append(
                f"{about} reaches {aim} at dimension {enough[0].x:,.0f}, the first of those tried; "
                f"the base has {_times(enough[0].x, panel)}."
                if enough
                else f"{about} reaches {aim} at none of the dimensions tried."
            )
        return told


def _times(dimension: float, panel: Panel) -> str:
    full = next(level for level in panel.levels if level.name == FULL)
    if not full.trainable:
        return "more"
    return f"{full.trainable / dimension:,.0f} times as many parameters"


def _with_ninety(panel: Panel) -> Panel:
    full = next((level for level in panel.levels if level.name == FULL), None)
    if full is None or not panel.higher_is_better:
        return panel
    line = Level(NINETY, "", _SHARE * full.value, None, None)
    return replace(panel, levels=(*panel.levels, line))


STUDY = Intrinsic()
