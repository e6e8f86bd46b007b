"""SVG as a tree, so that nothing in it can break out: all names and texts are escaped, and what
XML cannot hold (control characters) is shown as such.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from peftlab.plots.palette import COLOURED, resolved
from peftlab.printable import printable

LETTER = 7.8  # width of an average letter of 12.5 px, for placing labels
_SIDES = {1: 4, 2: 4, 3: 3, 4: 3, 5: 5, 6: 6}  # shapes by colour; 0 is a disc, 7 a cross
_TURN = {1: math.pi / 4, 3: 0.0, 4: math.pi}  # square, triangle up, triangle down


def drawing(width: float, height: float, label: str, kind: str = "") -> Element:
    """An empty picture; `label` is what a screen reader calls it."""
    return Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width:g} {height:g}",
            "class": f"plot {kind}".strip(),
            "role": "group",
            "aria-label": printable(label),
        },
    )


def put(parent: Element, tag: str, text: str | None = None, **attributes: object) -> Element:
    """Append an element; `class_` is class, `_` in names is `-`, numbers lose needless digits."""
    texts = {}
    for name, value in attributes.items():
        if value is not None:
            name = name.rstrip("_").replace("_", "-")
            texts[name] = (
                f"{value:.1f}".removesuffix(".0")
                if isinstance(value, float)
                else printable(str(value), lines=True)
            )
    made = ElementTree.SubElement(parent, tag, texts)
    made.text = None if text is None else printable(text)
    return made


def spoken(
    parent: Element,
    tip: str,
    class_: str,
    *,
    method: str | None = None,
    reachable: bool = True,
    transform: str | None = None,
) -> Element:
    """A part that tells its `tip`, a line a fact, to whoever listens, points at it or tabs there.

    The words stand once, in its label: `page.js` shows them where `data-tip` is empty.
    """
    return put(
        parent,
        "g",
        class_=class_,
        role="img",
        tabindex=0 if reachable else None,
        aria_label=tip.replace("\n", ";\n"),
        data_tip="",
        data_method=method,
        transform=transform,
    )


def tell(element: Element, tip: str) -> None:
    """Give an element words of its own, a line a fact, for whoever points at it."""
    element.set("data-tip", printable(tip, lines=True))


def path(points: Iterable[tuple[float, float]]) -> str:
    """The `d` of a line through points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def colour(number: int | None) -> str:
    """The CSS class of a method's colour."""
    return "rest" if number is None else f"c{number % COLOURED}"


def mark(parent: Element, number: int | None, x: float, y: float, size: float = 5.0) -> Element:
    """A method's mark: a shape for each colour, so that colour is not needed to tell them apart."""
    number = 0 if number is None else number % COLOURED
    if number == 0:
        return put(parent, "circle", class_="mark", cx=x, cy=y, r=size)
    if number == 7:
        s, t = size * 1.15, size * 0.38
        corners = [
            (-t, -s), (t, -s), (t, -t), (s, -t), (s, t), (t, t),
            (t, s), (-t, s), (-t, t), (-s, t), (-s, -t), (-t, -t),
        ]  # fmt: skip
    else:
        sides, turn = _SIDES[number], _TURN.get(number, 0.0)
        angles = [2 * math.pi * i / sides + turn for i in range(sides)]
        corners = [(1.25 * size * math.sin(a), -1.25 * size * math.cos(a)) for a in angles]
    outline = path((x + dx, y + dy) for dx, dy in corners)
    return put(parent, "path", class_="mark", d=outline + "Z")


def swatch(number: int | None) -> str:
    """A method's mark alone, for legends and tables."""
    made = Element(
        "svg", {"viewBox": "0 0 14 14", "class": f"swatch {colour(number)}", "aria-hidden": "true"}
    )
    mark(made, number, 7, 7, 4.6)
    return text_of(made)


def text_of(element: Element) -> str:
    """As it stands in a page."""
    return ElementTree.tostring(element, encoding="unicode")


def file_of(element: Element, css: str, title: str) -> str:
    """As a file of its own, in light colours on white, for papers and slides."""
    root = ElementTree.fromstring(text_of(element))
    space = "{http://www.w3.org/2000/svg}"
    for part in root.iter():
        for attribute in ("data-tip", "data-method", "tabindex"):
            part.attrib.pop(attribute, None)
    _, _, width, height = root.attrib["viewBox"].split()
    root.set("width", width)
    root.set("height", height)
    style, name = Element(f"{space}style"), Element(f"{space}title")
    style.text, name.text = resolved(css), printable(title)
    ground = Element(f"{space}rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    root[:0] = [name, style, ground]
    ElementTree.register_namespace("", space.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
