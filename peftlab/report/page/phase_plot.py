"""Where time and memory went: phases of each method."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from peftlab.plots.drawing import drawing, put, spoken

PHASE_NAMES = {
    "train": "train",
    "evaluate": "evaluate (losses)",
    "generate": "generate (test outputs)",
    "search": "search for the learning rate",
}
PHASES = tuple(PHASE_NAMES)
_ROW, _THIN = 42.0, 5.0


@dataclass(frozen=True)
class Phases:
    """A method's numbers, one a phase; None where nothing was measured.

    shared: the phases during which others used the machine.
    """

    label: str
    values: tuple[float | None, ...]
    shared: Collection[str] = ()

    @property
    def known(self) -> list[float]:
        """The numbers that were measured."""
        return [value for value in self.values if value is not None]


def time_plot(
    methods: Sequence[Phases], show: Callable[[float], str], width: float = 470
) -> Element:
    """Seconds, one bar a method, its phases one after the other."""
    svg = drawing(width, _ROW * len(methods) + 6, "Seconds by phase", "phase-plot")
    most = max(sum(method.known) for method in methods) or 1.0
    for i, method in enumerate(methods):
        total = _about(bool(method.shared)) + show(sum(method.known))
        row = _row(svg, method, i * _ROW, total, show, width)
        x = 0.0
        for phase, value in enumerate(method.values):
            if value:
                wide = width * value / most
                _bar(row, phase, x, max(wide, 0.5), 19, 14)
                x += wide
    return svg


def memory_plot(
    methods: Sequence[Phases], show: Callable[[float], str], width: float = 470
) -> Element:
    """Peak bytes: bars one below the other, because peaks do not add up."""
    svg = drawing(width, _ROW * len(methods) + 6, "Peak memory by phase", "phase-plot")
    most = max(max(method.known, default=0.0) for method in methods) or 1.0
    for i, method in enumerate(methods):
        peak = show(max(method.known)) if method.known else "not measured"
        row = _row(svg, method, i * _ROW, peak, show, width)
        for phase, value in enumerate(method.values):
            if value:
                _bar(row, phase, 0, width * value / most, 19 + phase * _THIN, _THIN - 1)
    return svg


def _about(shared: bool) -> str:
    return "≈ " if shared else ""


def _bar(row: Element, phase: int, x: float, width: float, y: float, height: float) -> None:
    put(row, "rect", class_=f"phase p{phase}", x=x, width=width, y=y, height=height)


def _row(
    svg: Element,
    method: Phases,
    top: float,
    total: str,
    show: Callable[[float], str],
    width: float,
) -> Element:
    parts = [
        f"{phase}: {_about(phase in method.shared)}{show(value)}"
        for phase, value in zip(PHASES, method.values, strict=True)
        if value is not None
    ]
    tip = "\n".join([method.label, *(parts or ["nothing was measured"])])
    moved = f"translate(0 {top:g})"
    row = spoken(svg, tip, "phases", method=method.label, transform=moved)
    longest = int((width - 90) / 6.8)
    name = method.label if len(method.label) <= longest else method.label[: longest - 1] + "…"
    put(row, "text", name, class_="label", x=0.0, y=13.0)
    put(row, "text", total, class_="total", x=width, y=13.0, text_anchor="end")
    put(row, "rect", class_="target", x=0, y=0, width=width, height=_ROW - 4)
    return row
