"""What an adaptation loses as a LoRA of each rank, whatever method made it.

Distillation after Hinton et al. 2015, arXiv:1503.02531; of weight changes after the best low-rank
fit, which PEFT's `convert_to_lora` takes without training. Against LoRA trained at that rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, ClassVar

from peftlab.comparison.processes import Say
from peftlab.errors import InputError
from peftlab.methods import Method, parse_one
from peftlab.study import words
from peftlab.study.base import (
    Axis,
    Context,
    Made,
    Panel,
    Point,
    Setting,
    Study,
    Variant,
)
from peftlab.study.common import ASKED, asked, methods, place, ranks
from peftlab.study.measure import Subject
from peftlab.study.words import LOSS
from peftlab.tasks import Task

_RANKS = (4, 16, 64)
DIRECT = "LoRA trained at this rank"
_DIVERGENCE = "KL"


class Convert(Study):
    """Trained methods as LoRA, by its rank."""

    name: ClassVar = "convert"
    title: ClassVar = "What does an adaptation lose as a LoRA?"
    source: ClassVar = "after Hinton et al. 2015"
    axis: ClassVar = Axis("rank")
    takes: ClassVar = frozenset({"values", "methods"})
    measures: ClassVar = "peftlab.study.studies.convert:measure"

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        taught = methods(setting, "prefix_tuning,bottleneck,full")
        if words_alone := [one.label for one in taught if not one.trains]:
            raise InputError(f"{words_alone[0]} trains nothing; methods that do were expected")
        return [
            Variant(series=ASKED, method=asked(task)),
            *(Variant(series=method.label, method=method) for method in taught),
            *(
                Variant(series=DIRECT, method=_lora(rank), x=rank)
                for rank in ranks(setting, _RANKS)
            ),
        ]

    def asks(self, setting: Setting, made: Made) -> dict[str, Any]:
        teaches = made.variant.series not in (ASKED, DIRECT)
        batch = setting.config.batch_size
        return {"ranks": ranks(setting, _RANKS) if teaches else [], "batch_size": batch}

    def panels(self, context: Context) -> list[Panel]:
        teachers = [made for made in context.made if made.measured and made.measured[0]]
        panels = []
        for panel in super().panels(context):
            points = [point for made in teachers for point in _points(made, panel.metric)]
            whole_panel = replace(panel, points=(*panel.points, *points))
            panels.append(replace(whole_panel, words=tuple(self.words(whole_panel))))
        return [*panels, _divergences(context, teachers)] if teachers else panels

    def words(self, panel: Panel) -> list[str]:
        told = [words.climb(panel, name, place("rank")) for name in panel.series()]
        levels = [level.name for level in panel.levels if level.name != ASKED]
        return told + [words.against(panel, name) for name in levels]


def _lora(rank: int) -> Method:
    return parse_one(f"lora:rank={rank},alpha={2 * rank}")


def _points(made: Made, quantity: str) -> list[Point]:
    """A quantity of what a method became, by rank; no intervals were computed for it."""
    points = []
    for rank in made.measured[0]:
        own = tuple(one[rank][quantity] for one in made.measured)
        label = _lora(int(rank)).label
        series = f"from {made.variant.series}"
        points.append(Point(series, float(rank), "", label, fmean(own), None, None, own))
    return points


def _divergences(context: Context, teachers: Sequence[Made]) -> Panel:
    points = [point for made in teachers for point in _points(made, _DIVERGENCE)]
    told = [
        f"On {context.task.name}, a LoRA of rank {last.x:.0f} comes within {last.value:.3g} nats a "
        f"token of what it was made of, {made.variant.series}."
        for made in teachers
        for last in _points(made, _DIVERGENCE)[-1:]
    ]
    return Panel(
        task=context.task.name,
        metric="",
        quantity="divergence in nats a token",
        higher_is_better=None,
        axis=Axis("rank"),
        connected=True,
        points=tuple(points),
        words=tuple(told),
    )


def measure(_: Say, subject: Subject) -> dict[str, Any]:
    """By rank, what a run comes to as a LoRA: its metrics, its loss and its divergence."""
    from peftlab.conversion import STEPS, convert
    from peftlab.evaluation import AdaptedLM, split_loss
    from peftlab.training import TrainConfig

    if not subject.asked["ranks"]:
        return {}
    model, adaptation = subject.open()
    limit = subject.max_length
    found = {}
    for rank in subject.asked["ranks"]:
        config = TrainConfig(
            steps=STEPS,
            batch_size=subject.asked["batch_size"],
            max_length=limit,
            seed=subject.seed,
        )
        made = convert(model, adaptation, _lora(rank), subject.task, config)
        lost = split_loss(AdaptedLM(model, made.adaptation), subject.task, "test", max_length=limit)
        scores = made.fidelity.student.scores
        found[str(rank)] = {**scores, LOSS: lost.loss, _DIVERGENCE: made.fidelity.divergence}
    return found


STUDY = Convert()
