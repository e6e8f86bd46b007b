"""Where adaptation matters: blocks from the top, from the bottom, and all but a span.

Zhang et al. 2023, arXiv:2303.16199, section 3.1, and Li & Liang 2021, arXiv:2101.00190, table 1
(FT-TOP2) adapt top blocks; Houlsby et al. 2019, arXiv:1902.00751, figure 6, takes spans away.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from peftlab.errors import InputError
from peftlab.methods import Method
from peftlab.study import words
from peftlab.study.base import Axis, Panel, Setting, Study, Variant, chosen, whole
from peftlab.study.common import FULL, changed, levels, methods
from peftlab.study.result import Point
from peftlab.tasks import Task


class Layers(Study):
    """A method by the blocks that it may change."""

    name: ClassVar = "layers"
    title: ClassVar = "In which blocks does adaptation matter?"
    source: ClassVar = "Houlsby et al. 2019, figure 6; Zhang et al. 2023; Li & Liang 2021, table 1"
    axis: ClassVar = Axis("blocks that are adapted")
    takes: ClassVar = frozenset({"values", "methods"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        count = setting.shape.layers
        usual = (1, *(max(1, round(count * part)) for part in (0.25, 0.5, 0.75)), count)
        sizes = whole(
            chosen(setting, usual, least=1, most=count, what="a number of blocks"), "that"
        )
        variants = levels(task)
        several = len(methods(setting, "lora")) > 1
        for method in methods(setting, "lora"):
            prefix = f"{method.label}, " if several else ""
            for size in sizes:
                top, bottom = range(count - size, count), range(size)
                variants.append(_variant(method, f"{prefix}top blocks", top, count))
                variants.append(_variant(method, f"{prefix}bottom blocks", bottom, count))
            for start, end in _spans(count):
                rest = [block for block in range(count) if not start <= block < end]
                name = f"without {_span(start, end)}"
                made = _variant(method, f"{prefix}all but a span", rest, count, name)
                variants.append(made)
        return variants

    def words(self, panel: Panel) -> list[str]:
        told = [
            words.climb(panel, name, _at)
            for name in panel.series()
            if not name.endswith("all but a span")
        ]
        spans = [points for name, points in panel.series().items() if name.endswith("a span")]
        told += [words.ranking(panel, points, lambda p: p.name) for points in spans]
        return [*told, words.against(panel, FULL)]


def _at(point: Point) -> str:
    return f"{point.x:.0f} block{'s' * (point.x != 1)}"


def _spans(count: int) -> list[tuple[int, int]]:
    """Spans with blocks on both sides: quarters side by side, and the middle half."""
    quarter, half = max(1, count // 4), count // 2
    spans = [(start, start + quarter) for start in range(quarter, count - quarter, quarter)]
    middle = (count - half) // 2
    inside = [(start, end) for start, end in spans if end < count]
    return inside + [(middle, middle + half)] * (middle > 0 and half > quarter)


def _span(start: int, end: int) -> str:
    return f"{start}" if end == start + 1 else f"{start}–{end - 1}"


def _variant(method: Method, series: str, blocks: Any, count: int, name: str = "") -> Variant:
    numbers = tuple(blocks)
    made = _adapting(method, numbers, count)
    return Variant(series=series, method=made, x=len(numbers), name=name)


def _adapting(method: Method, blocks: tuple[int, ...], count: int) -> Method:
    """The method on these blocks alone.

    Raises:
        InputError: it has no setting that names blocks.
    """
    known = {field.name: getattr(method, field.name) for field in fields(method)}
    if isinstance(known.get("layers"), tuple):
        return changed(method, layers=() if len(blocks) == count else blocks)
    if isinstance(known.get("blocks"), tuple):
        return changed(method, blocks=tuple(map(str, blocks)))
    raise InputError(
        f"--methods {method.label}: it has no setting that names blocks; lora and layers have one"
    )


STUDY = Layers()
