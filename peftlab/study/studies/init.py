"""What trained vectors and matrices start from.

Hu et al. 2021, arXiv:2106.09685, section 4.1 (LoRA's A); Lester et al. 2021, arXiv:2104.08691,
figure 3b, and Li & Liang 2021, arXiv:2101.00190, section 7.4 (real words or random vectors).
"""

from __future__ import annotations

from typing import Any, ClassVar, get_args, get_type_hints

from peftlab.errors import InputError
from peftlab.methods import Method
from peftlab.study import words
from peftlab.study.base import Axis, Panel, Setting, Study, Variant
from peftlab.study.common import FULL, changed, levels, methods, named
from peftlab.tasks import Task

_NEED_MORE = {"adapter"}  # a start that is a folder; the study of transfer is about it


class Init(Study):
    """Methods by their `initialisation`."""

    name: ClassVar = "init"
    title: ClassVar = "Does it matter what training starts from?"
    source: ClassVar = (
        "Hu et al. 2021, section 4.1; Lester et al. 2021, figure 3b; Li & Liang 2021, section 7.4"
    )
    axis: ClassVar = Axis("initialisation")
    places_are_names: ClassVar = True
    takes: ClassVar = frozenset({"methods"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        variants = levels(task)
        order: dict[str, int] = {}
        for method in methods(setting, "lora,prompt_tuning,prefix_tuning"):
            for start in _starts(method, task):
                x = order.setdefault(start, len(order))
                made = changed(method, initialisation=start)
                variants.append(Variant(series=method.label, method=made, x=x, name=start))
        return variants

    def words(self, panel: Panel) -> list[str]:
        told = [words.ranking(panel, points, named, s) for s, points in panel.series().items()]
        return [*told, words.against(panel, FULL)]


def _starts(method: Method, task: Task) -> list[str]:
    """The values of the setting that this task allows, the method's own first."""
    hints: dict[str, Any] = get_type_hints(type(method))
    if "initialisation" not in hints:
        raise InputError(f"--methods {method.label}: it has no setting initialisation to vary")
    known = [start for start in get_args(hints["initialisation"]) if start not in _NEED_MORE]
    return [start for start in known if start != "labels" or task.labels]


STUDY = Init()
