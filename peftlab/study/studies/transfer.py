"""A prompt learnt on one task as the start for another (Vu et al. 2022, arXiv:2110.07904).

The first task is the target; the others are sources. Prompts of the sources are trained with the
whole budget and the first seed; the target's with parts of the budget and every seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from peftlab.errors import InputError
from peftlab.methods import Method, parse_one
from peftlab.records import folders
from peftlab.study import words
from peftlab.study.base import Axis, Context, Made, Panel, Setting, Study, Variant, chosen
from peftlab.study.common import ASKED, asked, changed
from peftlab.study.make import shortened
from peftlab.study.result import Point
from peftlab.tasks import Task
from peftlab.training import Budget

SCRATCH = "from words"
_SHARES = (0.1, 0.25, 0.5, 1.0)


class Transfer(Study):
    """Prompt tuning by what it starts from, with more and more training."""

    name: ClassVar = "transfer"
    title: ClassVar = "Does a prompt learnt on another task help?"
    source: ClassVar = "Vu et al. 2022, section 2"
    axis: ClassVar = Axis("training on the target")
    tasks: ClassVar = ("demo", "demo-invite", "demo-pet")
    takes: ClassVar = frozenset({"values", "methods"})

    def targets(self, setting: Setting) -> Sequence[Task]:
        if len(setting.tasks) < 2:
            raise InputError(
                "the study transfer needs a target and a source: give --task more than once"
            )
        return setting.tasks[:1]

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        method = _method(setting)
        variants = [Variant(series=ASKED, method=asked(task))]
        variants += [
            Variant(series=source.name, method=method, x=0.0, task=source)
            for source in setting.tasks[1:]
        ]
        return variants + self._targets(setting, SCRATCH, method)

    def then(self, setting: Setting, task: Task, made: Sequence[Made]) -> list[Variant]:
        variants = []
        for source in made:
            if source.variant.task is None or not source.runs:
                continue
            folder = (source.runs[0].folder / folders.ADAPTER).resolve()
            method = changed(_method(setting), prompt=str(folder))
            variants += self._targets(setting, f"from {source.variant.task.name}", method)
        return variants

    def _targets(self, setting: Setting, series: str, method: Method) -> list[Variant]:
        shares = chosen(setting, _SHARES, least=0.001, most=1, what="a share of the budget")
        rows = len(setting.tasks[0].pairs("train"))
        amounts = [Budget.of(shortened(setting.config, share), rows).amount for share in shares]
        return [
            Variant(series=series, method=method, x=amount, share=share)
            for share, amount in zip(shares, amounts, strict=True)
        ]

    def panels(self, context: Context) -> list[Panel]:
        kind = Budget.of(context.setting.config, len(context.task.pairs("train"))).kind
        axis = Axis(f"{kind} of training on the target")
        return [replace(panel, axis=axis) for panel in super().panels(context)]

    def words(self, panel: Panel) -> list[str]:
        series = panel.series()
        base = {point.x: point for point in series.get(SCRATCH, [])}
        told = []
        for name, points in series.items():
            both = [point for point in points if point.x in base]
            if name == SCRATCH or not both:
                continue
            first, last = both[0], both[-1]
            told.append(
                f"{words.head(panel)} with the prompt {name}: {_against(panel, first, base)} after "
                f"the shortest training, {_against(panel, last, base)} after the longest."
            )
        return told


def _against(panel: Panel, point: Point, base: dict[float, Point]) -> str:
    other = words.shown(panel, base[point.x].value)
    return f"{words.shown(panel, point.value)} (from words {other})"


def _method(setting: Setting) -> Any:
    if len(setting.methods) > 1:
        raise InputError("the study transfer takes one method, such as prompt_tuning:length=50")
    return setting.methods[0] if setting.methods else parse_one("prompt_tuning")


STUDY = Transfer()
