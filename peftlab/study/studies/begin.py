"""What a change that begins at the cue learns, and in what time, against one of the whole row.

After Greenewald et al. 2025, arXiv:2504.12397 (activated LoRA), for any method. Each is trained for
several shares of the budget, and its points stand at the seconds that training took. How much there
is to save hangs on how long sources are: `-o source_tokens=64` and 256 make two such figures.
"""

from __future__ import annotations

from statistics import fmean
from typing import ClassVar

from peftlab.methods import Method
from peftlab.records import figures
from peftlab.study import words
from peftlab.study.base import Axis, Made, Panel, Setting, Study, Variant, chosen
from peftlab.study.common import ASKED, asked, changed, methods, trained_for
from peftlab.study.result import Point
from peftlab.tasks import Task
from peftlab.units import duration

_SHARES = (0.25, 0.5, 1.0)


class Begin(Study):
    """Methods on whole rows and from the cue on, by their training time."""

    name: ClassVar = "begin"
    title: ClassVar = "Does a change that begins at the cue learn as much, and in what time?"
    source: ClassVar = "after Greenewald et al. 2025"
    axis: ClassVar = Axis("seconds of training")
    takes: ClassVar = frozenset({"values", "methods"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        shares = chosen(setting, _SHARES, least=0.01, most=1, what="a share of the budget")
        return [Variant(series=ASKED, method=asked(task))] + [
            trained_for(made, share)
            for share in shares
            for method in methods(setting, "prompt_tuning,prefix_tuning,lora")
            for made in _both(method)
        ]

    def place(self, made: Made) -> float | None:
        if made.variant.x is None:
            return None
        seconds = [figures.named("train_seconds").of(run.record) for run in made.runs]
        known = [one for one in seconds if one is not None]
        return fmean(known) if known else None

    def words(self, panel: Panel) -> list[str]:
        series, told = panel.series(), []
        for label, points in series.items():
            name = _whole(label)
            if name == label or name not in series:
                continue
            row, cue = (max(one, key=lambda point: point.x) for one in (series[name], points))
            told.append(
                f"{words.head(panel)} of {name} is {_at(panel, row)}, and from the cue on "
                f"{_at(panel, cue)}: {cue.x / row.x:.0%} of its time."
            )
        return told


def _both(method: Method) -> tuple[Method, Method]:
    return changed(method, begin="row"), changed(method, begin="cue")


def _whole(label: str) -> str:
    """The label of the same method on whole rows."""
    for own, other in ((":begin=cue,", ":"), (":begin=cue", ""), (",begin=cue", "")):
        label = label.replace(own, other)
    return label


def _at(panel: Panel, point: Point) -> str:
    return f"{words.shown(panel, point.value)} after {duration(point.x)}"


STUDY = Begin()
