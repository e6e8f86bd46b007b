"""What all pages have in common: templates, styles, one script, and a policy that allows no other.

The policy allows no network and no script but the page's own (by hash), so that a text from a data
set could do nothing even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from peftlab.plots import palette
from peftlab.plots.drawing import swatch, text_of
from peftlab.printable import printable
from peftlab.version import __version__

_TEMPLATES = Path(__file__).parent / "templates"
_SHORT = 14  # letters that have room wherever a method's name stands


@cache
def environment() -> Environment:
    """Jinja with everything escaped; templates of comparisons and of studies."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["svg"] = lambda figure: Markup(text_of(figure))
    made.filters["swatch"] = lambda number: Markup(swatch(number))
    made.filters["raw_svg"] = Markup
    made.filters["breakable"] = _breakable
    return made


def filled(template: str, values: Mapping[str, Any]) -> str:
    """A page: what all pages have, and these values; control characters are shown as such."""
    text = environment().get_template(template).render(**shared(), **values)
    return printable(text, lines=True)


def shared() -> dict[str, Any]:
    """The values that every page's template needs."""
    script = file_text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "script": Markup(script),
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        "styles": Markup(f"{palette.schemes()}{file_text('page.css')}{file_text('plots.css')}"),
        "paper": {"light": palette.LIGHT["paper"], "dark": palette.DARK["paper"]},
        "version": __version__,
    }


def file_text(name: str) -> str:
    """A file beside the templates."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _breakable(label: str) -> Markup:
    """A method's name, which may break between its settings, and where one is long inside it."""
    if len(label) <= _SHORT:
        return escape(label)
    parts: list[str] = []
    for part in re.split(r"(?<=[,+])", label):
        parts += [part] if len(part) <= _SHORT else re.split(r"(?<=[:=])", part)
    return Markup("<wbr>").join(parts)
