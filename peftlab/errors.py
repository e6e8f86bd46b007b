"""The errors that a user can mend. Everything else that is raised is a defect of peftlab."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_SHOWN = 4  # of many things that are wrong in the same way
_LONGEST = 100  # characters of a name that is shown


class PeftlabError(Exception):
    """Base of all errors whose message says what was got, what was expected and how to mend it."""


class InputError(PeftlabError):
    """What the user gave (a file, a name, a setting, a template) cannot be used."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `' Did you mean "x"?'` for the known name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{match[0]}"?' if match else ""


def listed(words: str, them: Sequence[str]) -> str:
    """Return `words: a, b, …` with the first few of many, and how many there are."""
    more = f", … ({len(them)} in all)" if len(them) > _SHOWN else ""
    return f"{words + ': ' if words else ''}{', '.join(them[:_SHOWN])}{more}"


def shown(name: str) -> str:
    """Return a name out of a stranger's file, short and on one line."""
    said = name if name.isprintable() else repr(name)
    return said if len(said) <= _LONGEST else said[:_LONGEST] + "…"
