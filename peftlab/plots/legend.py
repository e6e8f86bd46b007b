"""What colours mean, above a picture: so that a file says it without the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from peftlab.plots.drawing import LETTER, colour, mark, put

LINE = 22.0  # height of a line of keys
_BESIDE = 40  # what a key takes besides its letters


@dataclass(frozen=True)
class Key:
    """A name, with the number of a method's mark, or of the bar of a phase."""

    name: str
    number: int | None = None
    phase: int | None = None


def fitting(text: str, width: float) -> str:
    """The text, cut where it is longer than so wide."""
    most = max(int(width / LETTER), 1)
    return text if len(text) <= most else text[: most - 1] + "…"


def put_legend(svg: Element, keys: Sequence[Key], width: float) -> float:
    """Write the keys, in as many lines as they need; returns the height they take."""
    layer = put(svg, "g", class_="legend-line")
    x, y = 14.0, 16.0
    for key in keys:
        name = fitting(key.name, width - _BESIDE - 14)
        wide = LETTER * len(name) + _BESIDE
        if x > 14 and x + wide > width - 6:
            x, y = 14.0, y + LINE
        if key.phase is None:
            own = put(layer, "g", class_=colour(key.number), data_method=key.name)
            mark(own, key.number, x, y - 4, 5)
        else:
            own = put(layer, "g")
            put(own, "rect", class_=f"phase p{key.phase}", x=x - 6, y=y - 10, width=12, height=12)
        put(own, "text", name, class_="label" if key.phase is None else "name", x=x + 12, y=y)
        x += wide
    return y - 16 + LINE + 6


def headed(figure: Element, keys: Sequence[Key]) -> Element:
    """The picture with a legend above it."""
    _, _, width, height = map(float, figure.attrib["viewBox"].split())
    made = Element("svg", dict(figure.attrib))
    head = put_legend(made, keys, width)
    below = put(made, "g", transform=f"translate(0 {head:g})")
    below.extend(deepcopy(list(figure)))
    made.set("viewBox", f"0 0 {width:g} {height + head:g}")
    return made
