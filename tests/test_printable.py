"""Nothing from data, names or records steers a terminal."""

from __future__ import annotations

import sys
import unicodedata

from peftlab.printable import printable


def test_control_characters_are_shown_as_such() -> None:
    assert printable("a\x1b[31m\r\n\tb\x9b\u202e\ud800\u2028") == (
        r"a\x1b[31m\r\n\tb\x9b\u202e\ud800\u2028"
    )
    assert printable("two\nlines\t\x07", lines=True) == "two\nlines\t\\x07"
    plain = "é 中文 👩\u200d🚀 \u00a0[red]x[/red] \\x1b हिन्दी"
    assert printable(plain) == plain


def test_no_control_character_is_left() -> None:
    every = printable("".join(map(chr, range(sys.maxunicode + 1))))
    assert not {unicodedata.category(it) for it in every} & {"Cc", "Cs", "Zl", "Zp"}
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(it) for it in every} & turning
