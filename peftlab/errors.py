"""The errors that a user can mend. Everything else that is raised is a defect of peftlab."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_SHOWN = 4  # of many things that are wrong in the same way
_LONGEST = 100  # characters of a name that is shown


class PeftlabError(Exception):
    """Base of all errors whose message says what was got, what was expected and how to mend it."""


class InputError(PeftlabError):
    """What the user gave (a file, a name, a setting, a template) cannot be used."""


class DiskFull(PeftlabError):
    """What takes the results is full, read-only or gone; nothing can go on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `' Did you mean "x"?'` for the known name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{match[0]}"?' if match else ""


Place = tuple[str | int, ...]  # where in nested values something is

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of usual size",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "dict_type": "names with values",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}
_LONGEST_VALUE = 60  # characters of a wrong value that are shown


@contextmanager
def refusing(
    before: str = "",
    called: Callable[[str], str] = str,
    known: Callable[[Place], Iterable[str]] = lambda _: (),
) -> Iterator[None]:
    """Raise what pydantic finds wrong inside as one `InputError`.

    Args:
        before: the beginning of its message.
        called: how the first part of a problem's place is called towards the user.
        known: the names that there are where an unknown one is.
    """
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        problems = error.errors(include_url=False)
        told = "; ".join(_problem(one, called, known) for one in problems)
        raise InputError(f"{before}{told}") from error


def _problem(
    one: Any, called: Callable[[str], str], known: Callable[[Place], Iterable[str]]
) -> str:
    first, *rest = one["loc"] or ("",)
    place = ".".join([called(str(first)), *map(str, rest)])
    if one["type"] == "extra_forbidden":
        return f"{place} is unknown.{nearest(str(one['loc'][-1]), known(one['loc']))}".rstrip(".")
    expected = _EXPECTED.get(one["type"])
    got = str(one["input"]) if "than" in one["type"] else repr(one["input"])
    got = got if len(got) <= _LONGEST_VALUE else f"{got[: _LONGEST_VALUE - 1]}…"
    if expected is None:
        return f"{place}: {one['msg']}" if place else one["msg"]
    limits = {key: _short(value) for key, value in one.get("ctx", {}).items()}
    told = f"{expected.format(**limits)} was expected"
    if one["type"] == "literal_error" and isinstance(one["input"], str):
        near = nearest(one["input"], re.findall("'([^']*)'", told))
        told += f".{near}" if near else ""
    return f"{place} is {got}; {told}"


def _short(limit: Any) -> Any:
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def listed(words: str, them: Sequence[str]) -> str:
    """Return `words: a, b, …` with the first few of many, and how many there are."""
    more = f", … ({len(them)} in all)" if len(them) > _SHOWN else ""
    return f"{words + ': ' if words else ''}{', '.join(them[:_SHOWN])}{more}"


def shown(name: str) -> str:
    """Return a name out of a stranger's file, short and on one line."""
    said = name if name.isprintable() else repr(name)
    return said if len(said) <= _LONGEST else said[:_LONGEST] + "…"


def reason(error: Exception) -> str:
    """What went wrong, in a line; its kind too where its own words are those of a defect."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or "no reason is given"
    told = said if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {said}"
    return told if told.endswith((".", "!", "?")) else f"{told}."
