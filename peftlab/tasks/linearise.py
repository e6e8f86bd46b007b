"""Tables as text, as the code of prefix-tuning writes them (arXiv:2101.00190).

The forms follow `gpt2/run_language_modeling.py`'s data sets and `gpt2/run_generation.py` of
github.com/XiangLi1999/PrefixTuning: one space on either side of every separator. Values stay as the
data have them; the papers' E2E files put spaces round the signs of three prices, see
docs/experiments.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

# The code's data files rename three of the eight slots of an E2E record.
_E2E_SLOTS = {
    "eatType": "Type",
    "priceRange": "price",
    "familyFriendly": "family friendly",
}
_E2E_SLOT = re.compile(r"\s*([^\[\],]+)\[([^\]]*)\]\s*(?:,|$)")


def e2e(record: str) -> str:
    """`name[Blue Spice], eatType[pub]` → `name : Blue Spice | Type : pub`, in the record's order.

    Raises `ValueError` for text that is not such a record.
    """
    slots: list[str] = []
    end = 0
    while end < len(record):
        match = _E2E_SLOT.match(record, end)
        if match is None:
            raise ValueError(f"{record[end : end + 40]!r} is not a slot such as name[Blue Spice]")
        name, value = match.group(1).strip(), match.group(2).strip()
        slots.append(f"{_E2E_SLOTS.get(name, name)} : {value}")
        end = match.end()
    if not slots:
        raise ValueError("the record is empty")
    return " | ".join(slots)


def webnlg(triple_sets: Any) -> str:
    """WebNLG's modified triples → `| subject : property : object | …`.

    triple_sets: the hub's column: {"mtriple_set": [["subject | property | object", …], …]}, of
    which the first set counts. (The code starts with a separator in training; when generating it
    leaves it out for the very first entry of the file only, by testing the wrong index.)
    """
    sets = _member(triple_sets, "mtriple_set")
    if not sets or not sets[0]:
        raise ValueError("there are no triples")
    return " ".join(f"| {_triple(str(text).split(' | '))}" for text in sets[0])


def dart(triples: Sequence[Sequence[str]]) -> str:
    """DART's triples → `subject : relation : object | …`, relations in lower case."""
    if not triples:
        raise ValueError("there are no triples")
    parts = ((s, r.lower(), o) for s, r, o in map(_three, triples))
    return " | ".join(" : ".join(part) for part in parts)


def sentences(parts: Sequence[str]) -> str:
    """A list of sentences as running text."""
    if isinstance(parts, str):
        return parts
    return " ".join(str(part).strip() for part in parts)


def text(value: Any) -> str:
    """Text as it is."""
    if not isinstance(value, str):
        raise ValueError(f"it holds a {type(value).__name__}, and text was expected")
    return value


def _member(value: Any, name: str) -> Any:
    """Return `name` of a struct of lists, or the list of `name` of a list of structs."""
    if isinstance(value, dict):
        return value[name]
    return [item[name] for item in value]


def _three(parts: Sequence[str]) -> Sequence[str]:
    if len(parts) != 3:
        raise ValueError(f"{list(parts)} is not a triple")
    return parts


def _triple(parts: Sequence[str]) -> str:
    return " : ".join(part.strip() for part in _three(parts))


FORMS: dict[str, Callable[[Any], str]] = {
    "text": text,
    "sentences": sentences,
    "e2e": e2e,
    "webnlg": webnlg,
    "dart": dart,
}
