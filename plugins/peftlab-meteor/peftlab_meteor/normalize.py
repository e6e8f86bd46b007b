# SPDX-License-Identifier: LGPL-2.1-only
# Ported in 2026 from METEOR 1.5, Copyright (C) 2004, 2010 Carnegie Mellon University: see NOTICE.
"""English text to METEOR's tokens, as the official jar's `-norm` makes them.

That is the Moses tokenizer with three additions: quotes and dashes are unified, hyphens inside
words are dropped (full-time → full time), and so are the dots of abbreviations (U.S. → US).
Punctuation stays; the result is lower-cased.
"""

from __future__ import annotations

import re
from collections.abc import Container
from itertools import pairwise

_ALPHA = "A-Za-zŠŽšžŸÀ-ÖØ-öø-ž\u0400-\u04ff\u0500-\u0527\ua640-\ua66e\ua67e-\ua697\u1d00-\u1d7f"
_ALNUM = "0-9" + _ALPHA
_BLANKS = " \t\n\x0b\f\r"
_DOTS = "DOTMULTI"

_SIGN = re.compile(rf"([^{_ALNUM}{_BLANKS}.'`,\-‘’])")
_SEVERAL_DOTS = re.compile(r"\.(\.+)")
_LAST_OF_DOTS = re.compile(rf"{_DOTS}\.([^.])")
_COMMAS = [
    re.compile(pattern) for pattern in ("([^0-9]),([^0-9])", "([0-9]),([^0-9])", "([^0-9]),([0-9])")
]
_SINGLE_QUOTE = re.compile("[`‘’]")
_DOUBLE_QUOTE = re.compile("[“”]|''")
_INNER_DASH = re.compile(rf"([{_ALNUM}.])-([{_ALNUM}])")
_APOSTROPHES = [
    (re.compile(rf"([^{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(rf"([^{_ALPHA}0-9])'([{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(rf"([{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(rf"([{_ALPHA}])'([{_ALPHA}])"), r"\1 '\2"),
    (re.compile(r"([0-9])'(s)"), r"\1 '\2"),
]
_LETTER = re.compile(f"[{_ALPHA}]")
_SPLIT = re.compile("[ \t\n\r\f]+")
_WHITE = re.compile("[\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")


class Normalizer:
    """Splits English text into METEOR's tokens.

    Args:
        prefixes: words that keep a dot at their end ("Mr").
        numeric_prefixes: those that do so before a number only ("No").
    """

    def __init__(self, prefixes: Container[str], numeric_prefixes: Container[str]) -> None:
        self.prefixes = prefixes
        self.numeric_prefixes = numeric_prefixes

    def tokens(self, text: str) -> list[str]:
        """Lower-cased tokens."""
        line = self._split_signs(f" {text} ")
        words = [word for word in _SPLIT.split(line) if word]
        pairs = pairwise([*words, ""])
        parts = (self._split_dot(word, following) for word, following in pairs)
        line = " ".join(parts)
        while f"DOT{_DOTS}" in line:
            line = line.replace(f"DOT{_DOTS}", f"{_DOTS}.")
        line = _WHITE.sub(" ", line.replace(_DOTS, ".")).lower()
        return [word for word in _SPLIT.split(line) if word]

    def _split_signs(self, line: str) -> str:
        """Blanks around signs, commas, quotes and contractions; runs of dots put aside."""
        line = _SIGN.sub(r" \1 ", line)
        line = _SEVERAL_DOTS.sub(rf" {_DOTS}\1", line)
        while f"{_DOTS}." in line:
            line = _LAST_OF_DOTS.sub(rf"DOT{_DOTS} \1", line)
            line = line.replace(f"{_DOTS}.", f"DOT{_DOTS}")
        for pattern in _COMMAS:
            line = pattern.sub(r"\1 , \2", line)
        line = _DOUBLE_QUOTE.sub(' " ', _SINGLE_QUOTE.sub("'", line))
        line = line.replace("–", "-").replace("--", "-")
        line = _INNER_DASH.sub(r"\1 \2", line)
        for pattern, parted in _APOSTROPHES:
            line = pattern.sub(parted, line)
        return line

    def _split_dot(self, word: str, following: str) -> str:
        """Part a word from the dot at its end, unless the dot belongs to it."""
        if len(word) < 2 or not word.endswith("."):
            return word
        stem = word[:-1]
        if "." in stem and _LETTER.search(stem):
            return word.replace(".", "")
        if stem in self.prefixes or re.match("[a-z]", following):
            return word
        if stem in self.numeric_prefixes and re.match("[0-9]", following):
            return word
        return f"{stem} ."
