"""Prompt design, prompt tuning and full fine-tuning as the base grows.

Lester et al. 2021, arXiv:2104.08691, figure 1 (T5 from 77 M to 11 B parameters on SuperGLUE).
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import ClassVar

from peftlab.comparison.processes import Say, call
from peftlab.demo import sizes
from peftlab.errors import InputError
from peftlab.methods import parse
from peftlab.study import words
from peftlab.study.base import Axis, Made, Panel, Setting, Study, Variant
from peftlab.study.common import ASKED, FULL, asked
from peftlab.tasks import Task

_TUNED = {"prompt_tuning": "prompt tuning", "full": FULL}


class Scale(Study):
    """A few methods on bases of several sizes."""

    name: ClassVar = "scale"
    title: ClassVar = "What does a larger base change?"
    source: ClassVar = "Lester et al. 2021, figure 1"
    axis: ClassVar = Axis("parameters of the base")
    takes: ClassVar = frozenset({"models", "methods"})

    def bases(self, say: Callable[[str], None]) -> tuple[str, ...]:
        for name in sizes.SIZES:
            if not sizes.is_made(name):
                say(f"The base {name} is made first: minutes, once on this machine")
                call("peftlab.study.studies.scale:make_base", name)
        return tuple(sizes.SIZES)

    def note(self, setting: Setting) -> str:
        if not set(setting.models) & set(sizes.SIZES):
            return ""
        return (
            "An analogue of the paper's T5 figure, not a reproduction: these bases are GPT-2-like "
            "models pretrained for minutes on the demo's generated corpus, all on equally much of "
            "it. Where curves meet here says nothing of where they meet for real models."
        )

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        if len(setting.models) < 2:
            raise InputError("the study scale needs several bases: give --model more than once")
        methods = {ASKED: asked(task)} | {
            _TUNED.get(method.name, method.name): method
            for method in setting.methods or parse("prompt_tuning,full")
        }
        return [
            Variant(series=series, method=method, base=base, x=0.0)
            for base in setting.models
            for series, method in methods.items()
        ]

    def place(self, made: Made) -> float | None:
        return fmean(kept.record.model.parameters for kept in made.runs)

    def words(self, panel: Panel) -> list[str]:
        series = panel.series()
        told = []
        for name, points in series.items():
            first, last = points[0], points[-1]
            told.append(
                f"{words.head(panel)} of {name} goes from {words.shown(panel, first.value)} on the "
                f"smallest base to {words.shown(panel, last.value)} on the largest, which is "
                f"{last.x / first.x:.0f} times its size."
            )
        if FULL in series:
            told += [
                _gap(panel, name) for name in series if name not in (FULL, ASKED) and panel.metric
            ]
        return told


def _gap(panel: Panel, name: str) -> str:
    """How far a method is from full fine-tuning: on the smallest base, at most, on the largest.

    Both may fail on the smallest, so that it says little alone.
    """
    full = {point.x: point.value for point in panel.series()[FULL]}
    gaps = [
        (abs(full[point.x] - point.value), point.x)
        for point in panel.series()[name]
        if point.x in full
    ]
    (first, _), (widest, where), (last, _) = gaps[0], max(gaps), gaps[-1]
    return (
        f"{words.head(panel)}: {name} and {FULL} are {words.shown(panel, first)} apart on the "
        f"smallest base, {words.shown(panel, last)} on the largest, and farthest with "
        f"{where:,.0f} parameters: {words.shown(panel, widest)}."
    )


def make_base(_: Say, name: str) -> None:
    """Make a base of the demo's, in a process of its own."""
    sizes.make(name)


STUDY = Scale()
