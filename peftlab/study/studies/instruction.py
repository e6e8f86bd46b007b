"""Whether the wording of a hard prompt matters, and what it costs in context.

Webson & Pavlick 2022, arXiv:2109.01247 (irrelevant and misleading wordings); Lester et al. 2021,
arXiv:2104.08691, section 1 (words against tuned vectors). A tuned prompt is tried alone and before
the instruction.
"""

from __future__ import annotations

import random
from statistics import fmean
from typing import ClassVar

from peftlab.errors import InputError
from peftlab.methods import Composed, Method, build, parse_one
from peftlab.study import words
from peftlab.study.base import Axis, Made, Panel, Setting, Study, Variant, chosen, whole
from peftlab.study.common import named
from peftlab.tasks import Task

WORDINGS, SHOWN, TUNED, BOTH = "wordings", "exemplars", "tuned prompt", "tuned prompt + instruction"
_IRRELEVANT = "Tell a story about the sea.\n"
_SHOTS = (1, 2, 4)
_LENGTHS = (5, 20)


class Instruction(Study):
    """Hard prompts by wording and exemplars, tuned prompts with and without words."""

    name: ClassVar = "instruction"
    title: ClassVar = "Does the wording of a prompt matter, and what does it cost in context?"
    source: ClassVar = "Webson & Pavlick 2022; Lester et al. 2021"
    axis: ClassVar = Axis("context tokens besides the source")
    connected: ClassVar = False
    takes: ClassVar = frozenset({"values", "words"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        if not task.instruction and not setting.words:
            raise InputError(
                f"the task {task.name} brings no instruction: give wordings with --wording TEXT"
            )
        most = len(task.train)
        shots = whole(chosen(setting, _SHOTS, least=1, most=most, what="a number of exemplars"), "")
        own = task.instruction or _line(setting.words[0])
        variants = [
            Variant(series=WORDINGS, method=_asking(text), x=0.0, name=name)
            for name, text in wordings(own, setting.words).items()
        ]
        variants += [
            Variant(
                series=SHOWN,
                method=parse_one(f"hard_prompt:shots={n}"),
                x=0.0,
                name=f"{n} exemplar{'s' * (n > 1)}",
            )
            for n in shots
        ]
        for length in _LENGTHS:
            tuned = parse_one(f"prompt_tuning:length={length}")
            both = Composed(parts=(_asking(own), tuned))
            variants.append(Variant(series=TUNED, method=tuned, x=0.0, name=f"length {length}"))
            variants.append(Variant(series=BOTH, method=both, x=0.0, name=f"length {length}"))
        return variants

    def place(self, made: Made) -> float | None:
        tokens = [kept.record.context_tokens for kept in made.runs]
        return fmean(known) if (known := [t for t in tokens if t is not None]) else None

    def words(self, panel: Panel) -> list[str]:
        series = panel.series()
        told = [words.ranking(panel, series[WORDINGS], named, WORDINGS)]
        bests = [panel.best(points) for points in series.values()]
        listed = "; ".join(
            f"{p.series} {words.shown(panel, p.value)} with {p.x:,.0f} tokens ({p.name})"
            for p in bests
        )
        return [*told, f"{words.head(panel)}, the best of each kind: {listed}."]


def wordings(own: str, given: tuple[str, ...]) -> dict[str, str]:
    """The wordings that are tried, by name: none, the task's, the user's, and distorted ones."""
    end = own[len(own.rstrip()) :]
    parts = own.split()
    shuffled = random.Random(0).sample(parts, len(parts))
    texts = {
        "no words": "none",
        "its own": own,
        "shuffled": " ".join(shuffled) + end,
        "first half": " ".join(parts[: max(1, len(parts) // 2)]) + end,
        "irrelevant": _IRRELEVANT,
    }
    texts |= {f"“{_short(text)}”": _line(text) for text in given}
    first: dict[str, str] = {}  # by text
    for name, text in texts.items():
        first.setdefault(text, name)
    return {name: text for text, name in first.items()}


def _asking(text: str) -> Method:
    return build("hard_prompt", {"instruction": text})


def _line(text: str) -> str:
    """Words that the user typed, on a line of their own."""
    return text if text.endswith("\n") else f"{text}\n"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 24 else text[:23] + "…"


STUDY = Instruction()
