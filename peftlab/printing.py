"""Text from data, names and records, made safe for where it is shown; nothing in it is markup.

Control characters (ESC first of all), overrides of the writing direction and what no encoding
holds are shown by their numbers, as JSON writes them: `\\u001b`. So JSON that is printed keeps its
values, and a terminal never gets them raw.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_SHORT = {"\n": "\\n", "\t": "\\t"}
_MARKDOWN = re.compile(r"[\\`*\[\]<>|$&~]|(?<![^\W_])_|_(?![^\W_])")
_BLOCK = re.compile(r"^(\s*\d*)([#+=-]|(?<=\d)[.)](?=\s|$))")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str) -> str:
    """The text with what cannot be seen shown by its number; line ends and tabs stay."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """The same where a line end or a tab would break the form: a name, a table's cell."""
    return visible(re.sub(r"[\n\t]", lambda found: _SHORT[found[0]], text))


def markdown(text: str) -> str:
    """One line of text in which Markdown finds nothing of its own."""
    escaped = _MARKDOWN.sub(lambda found: f"\\{found[0]}", one_line(text))
    return _BLOCK.sub(r"\1\\\2", escaped)


def csv_cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula (OWASP, CSV injection); numbers stay so."""
    if not isinstance(value, str):
        return value
    return "'" + visible(value) if value.startswith(_FORMULA) else visible(value)


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text for people, or JSON."""
    print(visible(str(text)), end="\n" if nl else "", file=sys.stderr if err else None, flush=True)


def cell(text: str, style: str = "") -> Text:
    """Text for a table of `rich`, without its markup."""
    from rich.text import Text

    return Text(one_line(text), style)


def terminal() -> Console:
    """A console that reads no markup, emoji names or highlights out of texts."""
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            options |= {"markup": False, "emoji": False, "highlight": False}
            return super().render_str(visible(text), **options)

    return Plain(markup=False, emoji=False, highlight=False)
