"""Random line formats, written as plain text: `[TOWN/DAY] EVENT by HOST`.

A format is its own name: upper-case words are fields, all else stands as it is. That is how the
pretraining text asks for one in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

_SEPARATORS = (" / ", "/", " - ", ": ", ", ", "; ", " | ", " ~ ", " > ", " = ", " + ", " ", ". ")
_WORDS = (" by ", " at ", " in ", " with ", " for ", " and ", " on ", " from ")
_BRACKETS = (("[", "]"), ("(", ")"), ("<", ">"), ('"', '"'), ("*", "*"))
_HEADS = ("", "", "", "", "* ", "# ", "> ", "- ")
_TAILS = ("", "", "", "", ".", "!", " ;")

FIELD = re.compile(r"[A-Z]{2,}")


def random_format(rng: Random, fields: Sequence[str]) -> str:
    """A format of one to five of the fields, each at most once, in random order."""
    # A derived field beside its source (DY and DAY) is fine: the two read differently.
    chosen = rng.sample(list(fields), min(len(fields), rng.choice((1, 2, 2, 3, 3, 3, 4, 4, 5))))
    pieces = [_bracketed(rng, field, 0.2) for field in chosen]
    while len(pieces) > 1:
        # Joining a random neighbouring pair lets a bracket span several fields.
        at = rng.randrange(len(pieces) - 1)
        separator = rng.choice(_SEPARATORS if rng.random() < 0.75 else _WORDS)
        pair = pieces[at] + separator + pieces[at + 1]
        pieces[at : at + 2] = [_bracketed(rng, pair, 0.15)]
    return rng.choice(_HEADS) + pieces[0] + rng.choice(_TAILS)


def _bracketed(rng: Random, text: str, probability: float) -> str:
    if rng.random() >= probability or text[0] in '[(<"*' or text[-1] in '])>"*':
        return text
    left, right = rng.choice(_BRACKETS)
    return left + text + right


def fields_of(line_format: str) -> tuple[str, ...]:
    """The fields that a format asks for, in order."""
    return tuple(FIELD.findall(line_format))


def render(line_format: str, values: Mapping[str, str]) -> str:
    """The line that a format gives for these values."""
    return FIELD.sub(lambda match: values[match[0]], line_format)
