"""Text from data, names and records, as a terminal may get it."""

from __future__ import annotations

import re

_LINES = "\n\t"
# C0 and C1, separators of lines and paragraphs, what turns the direction of
# text, and halves of characters, which no terminal's encoding can write.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters shown as Python writes them (`\\x1b`).

    Args:
        lines: line breaks and tabs stay; else they are shown too, so that it is one line.
    """
    return _CONTROLS.sub(lambda found: _shown(found[0], lines), text)


def _shown(character: str, lines: bool) -> str:
    return character if lines and character in _LINES else ascii(character)[1:-1]
