"""Where LoRA's rank stops paying.  Hu et al. 2021, arXiv:2106.09685, section 7.2, table 6.

α grows with the rank, so that the scale α / r of the change, and with it the best rate, stays.
"""

from __future__ import annotations

from typing import Any, ClassVar

from peftlab.study import words
from peftlab.study.base import Axis, Panel, Setting, Study, Variant, chosen, whole
from peftlab.study.common import FULL, changed, levels, methods, place
from peftlab.tasks import Task

_RANKS = (1, 2, 4, 8, 16, 32, 64)


class Rank(Study):
    """LoRA on few and on all matrices, by rank."""

    name: ClassVar = "rank"
    title: ClassVar = "Which rank does LoRA need?"
    source: ClassVar = "Hu et al. 2021, section 7.2"
    axis: ClassVar = Axis("rank")
    takes: ClassVar = frozenset({"values", "methods"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        most = setting.shape.hidden
        ranks = whole(chosen(setting, _RANKS, least=1, most=most, what="a rank"), "a rank")
        return levels(task) + [
            Variant(series=method.label, method=_ranked(method, rank), x=rank)
            for method in methods(setting, "lora:targets=q+v,lora")
            for rank in ranks
        ]

    def words(self, panel: Panel) -> list[str]:
        told = [words.climb(panel, series, place("rank")) for series in panel.series()]
        return [*told, words.against(panel, FULL)]


def _ranked(method: Any, rank: int) -> Any:
    made = changed(method, rank=rank)
    return changed(made, alpha=method.alpha / method.rank * rank)


STUDY = Rank()
