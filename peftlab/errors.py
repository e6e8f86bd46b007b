"""The errors that a user can mend. Everything else that is raised is a defect of peftlab."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PeftlabError(Exception):
    """Base of all errors whose message says what was got, what was expected and how to mend it."""


class InputError(PeftlabError):
    """What the user gave (a file, a name, a setting, a template) cannot be used."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `' Did you mean "x"?'` for the known name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{match[0]}"?' if match else ""
