"""Text from data, names and records, made safe for where it is shown: nothing in it is markup."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_LINES = "\n\t"
# C0 and C1, separators of lines and paragraphs, what turns the direction of text, and what no
# encoding, or no XML, can write: halves of characters, and the two that are none.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_MARKDOWN = re.compile(r"[\\`*\[\]<>|$&~]|(?<![^\W_])_|_(?![^\W_])")  # not inside words: a_b
_BLOCK = re.compile(r"^(\s*\d*)([#+=-]|(?<=\d)[.)](?=\s|$))")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters shown as Python writes them (`\\x1b`).

    Args:
        lines: line breaks and tabs stay; else they are shown too, so that it is one line.
    """
    return _CONTROLS.sub(lambda match: _shown(match[0], lines), text)


def _shown(character: str, lines: bool) -> str:
    return character if lines and character in _LINES else ascii(character)[1:-1]


def json_text(values: Any, indent: int | None = 2) -> str:
    """JSON that a terminal may get: control characters are escaped, other letters stand as such."""
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    return _CONTROLS.sub(
        lambda match: match[0] if match[0] in _LINES else f"\\u{ord(match[0]):04x}", text
    )


def markdown(text: str) -> str:
    """One line of text in which Markdown finds nothing of its own."""
    escaped = _MARKDOWN.sub(lambda match: f"\\{match[0]}", printable(text))
    return _BLOCK.sub(r"\1\\\2", escaped)


def code(text: str) -> str:
    """The same as code of Markdown, whatever it holds."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def csv_cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula (OWASP: CSV injection); numbers stay so."""
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(_FORMULA) else "") + printable(value, lines=True)


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text for people, or JSON."""
    said = printable(str(text), lines=True)
    print(said, end="\n" if nl else "", file=sys.stderr if err else None, flush=True)


def cell(text: str, style: str = "") -> Text:
    """Text for a table of `rich`, without its markup."""
    from rich.text import Text

    return Text(printable(text), style)


def terminal(*, err: bool = False) -> Console:
    """A console that reads no markup, names of emoji or numbers out of texts.

    Args:
        err: of standard error.
    """
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            options |= {"markup": False, "emoji": False, "highlight": False}
            return super().render_str(printable(text, lines=True), **options)

    return Plain(markup=False, emoji=False, highlight=False, stderr=err)
