"""What is learnt on the task against what is lost elsewhere.

Biderman et al. 2024, arXiv:2405.09673, figure 3 (LoRA learns less and forgets less). Loss of
general text is measured with the adaptation on; each method is trained briefly and at full length.
"""

from __future__ import annotations

from statistics import fmean
from typing import ClassVar

from peftlab.errors import InputError
from peftlab.study import words
from peftlab.study.base import Axis, Made, Panel, Setting, Study, Variant, chosen
from peftlab.study.common import methods, trained_for
from peftlab.study.result import Point
from peftlab.tasks import Task
from peftlab.units import loss
from peftlab.verdict.numbers import listed

_SHARES = (0.33, 1.0)
_AS_GOOD = 0.95  # of the best quality


class Forgetting(Study):
    """Methods by how much the loss of general text rises."""

    name: ClassVar = "forgetting"
    title: ClassVar = "What does learning a task cost elsewhere?"
    source: ClassVar = "Biderman et al. 2024, figure 3"
    axis: ClassVar = Axis("rise of the loss of general text, nats per token")
    takes: ClassVar = frozenset({"values", "methods", "general_text"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        if not setting.general_text:
            raise InputError("the study forgetting needs a text: give --general-text FILE")
        shares = chosen(setting, _SHARES, least=0.01, most=1, what="a share of the budget")
        usual = "prompt_tuning,prefix_tuning,bottleneck,lora,last_k,full"
        return [
            trained_for(method, share) for share in shares for method in methods(setting, usual)
        ]

    def place(self, made: Made) -> float | None:
        kept_general = [kept.record.general for kept in made.runs]
        known = [one.forgotten for one in kept_general if one is not None]
        return fmean(known) if known else None

    def note(self, setting: Setting) -> str:
        return (
            "An adaptation that is kept beside the base can be left out of a request, and nothing "
            "is forgotten; the rise is what general text suffers while it is on."
        )

    def words(self, panel: Panel) -> list[str]:
        ends = [points[-1] for points in _by_training(panel).values()]
        by_loss = sorted(ends, key=lambda point: point.x)
        named = listed([f"{point.series} {_signed(point.x)}" for point in by_loss])
        told = [f"On {panel.task}, the loss of general text rises at full training by: {named}."]
        best = panel.best(ends)
        if panel.higher_is_better:
            good = [point for point in by_loss if point.value >= _AS_GOOD * best.value]
            least = good[0]
            told.append(
                f"{words.head(panel)} is best with {best.series} "
                f"({words.shown(panel, best.value)}); of the methods within 5 % of that, "
                f"{least.series} forgets least ({words.shown(panel, least.value)} for a rise of "
                f"{_signed(least.x)})."
            )
        return told


def _by_training(panel: Panel) -> dict[str, list[Point]]:
    """The points of each series, the longest training last."""
    series: dict[str, list[Point]] = {}
    for point in panel.points:
        series.setdefault(point.series, []).append(point)
    return series


def _signed(value: float) -> str:
    return f"{loss(value)}" if value >= 0 else f"−{loss(-value)}"


STUDY = Forgetting()
