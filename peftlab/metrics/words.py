"""Words of any script, and how much of a text Google's ROUGE sees.

Word boundaries are those of Unicode's annex 29, as the package `regex` has them. In scripts without
spaces (Chinese, hiragana, Thai, Lao, Khmer, Burmese) these are boundaries of characters, so that no
dictionary decides what a word is; katakana stays in runs.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import regex  # type: ignore[import-untyped]

_BOUNDARY = regex.compile(r"(?w)\b")
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
)
_WORD_SIGN = regex.compile(r"[\p{L}\p{N}]")
_SEEN_BY_GOOGLE = regex.compile(r"[a-z0-9]")


def unicode_words(text: str) -> list[str]:
    """Lower-cased words that hold a letter or a number, in canonical composition (NFC)."""
    pieces = _BOUNDARY.split(unicodedata.normalize("NFC", text).lower())
    return [piece for piece in pieces if _WORD_SIGN.search(piece)]


def latin_share(texts: Iterable[str]) -> float:
    """Of the letters and numbers of these texts, the share that Google's ROUGE takes (a–z, 0–9).

    1 where there are none at all.
    """
    seen, every = _count(texts, _SEEN_BY_GOOGLE)
    return seen / every if every else 1.0


def unseen_by_google(texts: Iterable[str]) -> bool:
    """Whether there are letters or numbers, but none that Google's ROUGE takes."""
    letters = False
    for text in texts:
        if _SEEN_BY_GOOGLE.search(text.lower()):
            return False
        letters = letters or _WORD_SIGN.search(text) is not None
    return letters


def unspaced_share(texts: Iterable[str]) -> float:
    """Of the letters and numbers of these texts, the share in scripts without spaces."""
    unspaced, every = _count(texts, _UNSPACED)
    return unspaced / every if every else 0.0


def _count(texts: Iterable[str], wanted: regex.Pattern[str]) -> tuple[int, int]:
    """How many of the letters and numbers match, and how many there are."""
    matched = every = 0
    for text in texts:
        letters = "".join(_WORD_SIGN.findall(text.lower()))
        matched += len(wanted.findall(letters))
        every += len(letters)
    return matched, every
