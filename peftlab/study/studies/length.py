"""How long a soft prompt or prefix should be.

Lester et al. 2021, arXiv:2104.08691, figure 3a; Li & Liang 2021, arXiv:2101.00190, section 7.2.
"""

from __future__ import annotations

from typing import ClassVar

from peftlab.study import words
from peftlab.study.base import Axis, Panel, Setting, Study, Variant, chosen, whole
from peftlab.study.common import FULL, changed, levels, methods, place
from peftlab.tasks import Task

_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200)


class Length(Study):
    """Prompt tuning and prefix tuning by length."""

    name: ClassVar = "length"
    title: ClassVar = "How long should a soft prompt or a prefix be?"
    source: ClassVar = "Lester et al. 2021, figure 3a; Li & Liang 2021, section 7.2"
    axis: ClassVar = Axis("length in positions")
    takes: ClassVar = frozenset({"values", "methods"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        most = setting.shape.context // 2  # the other half is for the text
        lengths = whole(chosen(setting, _LENGTHS, least=1, most=most, what="a length"), "a length")
        return levels(task) + [
            Variant(series=method.label, method=changed(method, length=length), x=length)
            for method in methods(setting, "prompt_tuning,prefix_tuning")
            for length in lengths
        ]

    def words(self, panel: Panel) -> list[str]:
        told = [words.climb(panel, series, place("length")) for series in panel.series()]
        return [*told, words.against(panel, FULL)]


STUDY = Length()
