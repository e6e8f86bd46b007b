"""Names beside their marks, where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from peftlab.plots.drawing import LETTER, colour, put

_LONGEST = 30  # letters of a name


@dataclass(frozen=True)
class Box:
    """A rectangle that a label must not lie on."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True)
class Named:
    """A mark at x, y with a name; number: of its colour."""

    text: str
    number: int | None
    x: float
    y: float


def put_names(
    svg: Element,
    named: Sequence[Named],
    taken: list[Box],
    inside: Box,
    avoided: Sequence[Box] = (),
) -> None:
    """Write each name where neither a box nor another name is, the first ones first.

    Names for which there is no room are left out: tooltips have them all.

    Args:
        taken: boxes that stay free; those of the names are added.
        inside: what names must not leave.
        avoided: boxes, as of thin lines, that a name lies on only where it has no other place.
    """
    layer = put(svg, "g", class_="names", aria_hidden="true")
    for one in named:
        text = one.text if len(one.text) <= _LONGEST else one.text[: _LONGEST - 1] + "…"
        places = _places(one, LETTER * len(text), inside)
        free = [p for p in places if not any(p.box.meets(other) for other in taken)]
        clear = [p for p in free if not any(p.box.meets(other) for other in avoided)]
        for place in [*clear, *free][:1]:
            taken.append(place.box)
            kind = f"label {colour(one.number)}"
            put(layer, "text", text, class_=kind, x=place.x, y=place.y, text_anchor=place.anchor)


@dataclass(frozen=True)
class _Place:
    """Where a name may be written, and what it then covers."""

    x: float
    y: float
    anchor: str
    box: Box


def _places(one: Named, wide: float, inside: Box) -> list[_Place]:
    """Round the mark, the best first."""
    places = []
    for anchor, dx, dy in _PLACES:
        shift = wide if anchor == "end" else wide / 2 if anchor == "middle" else 0
        left = one.x + dx - shift
        box = Box(left, one.y + dy - 11, left + wide, one.y + dy + 3)
        fits = box.left > inside.left and box.right < inside.right
        if fits and box.top > inside.top and box.bottom < inside.bottom:
            places.append(_Place(one.x + dx, one.y + dy, anchor, box))
    return places


_PLACES = [
    ("start", 10.0, 4.0), ("end", -10.0, 4.0), ("start", 9.0, -8.0), ("end", -9.0, -8.0),
    ("start", 9.0, 17.0), ("end", -9.0, 17.0), ("middle", 0.0, -12.0), ("middle", 0.0, 22.0),
    ("start", 9.0, -20.0), ("end", -9.0, -20.0), ("start", 9.0, 29.0), ("end", -9.0, 29.0),
    ("start", 9.0, -34.0), ("end", -9.0, -34.0), ("start", 9.0, 43.0), ("end", -9.0, 43.0),
]  # fmt: skip
