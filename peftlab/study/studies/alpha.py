"""What LoRA's α does, divided by the rank or by its root.

Hu et al. 2021, arXiv:2106.09685, section 4.1 ("tuning α is roughly the same as tuning the learning
rate"); Kalajdzievski 2023, arXiv:2312.03732.
"""

from __future__ import annotations

from typing import ClassVar

from peftlab.study import words
from peftlab.study.base import Axis, Panel, Setting, Study, Variant, chosen
from peftlab.study.common import FULL, changed, levels, methods
from peftlab.study.result import Point
from peftlab.tasks import Task

_ALPHAS = (1, 4, 16, 64, 256)


class Alpha(Study):
    """LoRA by alpha."""

    name: ClassVar = "alpha"
    title: ClassVar = "How much does LoRA's alpha matter?"
    source: ClassVar = "Hu et al. 2021, section 4.1; Kalajdzievski 2023"
    axis: ClassVar = Axis("alpha")
    takes: ClassVar = frozenset({"values", "methods"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        alphas = chosen(setting, _ALPHAS, least=1e-6, most=1e6, what="alpha")
        return levels(task) + [
            Variant(series=method.label, method=changed(method, alpha=float(alpha)), x=alpha)
            for method in methods(setting, "lora,lora:rslora=true")
            for alpha in alphas
        ]

    def words(self, panel: Panel) -> list[str]:
        def at(point: Point) -> str:
            return f"alpha {point.x:g}"

        told = [words.climb(panel, series, at) for series in panel.series()]
        return [*told, words.against(panel, FULL)]


STUDY = Alpha()
