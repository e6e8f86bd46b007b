"""Options: each is declared once, as a field of a dataclass, with its help and its limits.

    batch_size: Annotated[int, Ge(1), Option("Rows of a micro-batch.")] = 16

From the declaration come the Python signature, the flag of the command line, the entry of a YAML
file and what a record holds. A dataclass that is `Checked` checks its fields as they enter,
wherever they come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from peftlab.errors import InputError, nearest, refusing

if TYPE_CHECKING:
    from pydantic import BaseModel


# What is the same for commands with and without a comparison.
MODEL = "The frozen base: demo, a folder, a hub id, or a GGUF file."
TASK = "A task's name, a file, a folder with train/validation/test files, or a hub id."
DEVICE = "auto, cpu, cuda, cuda:1, mps."


@dataclass(frozen=True)
class Option:
    """What a user is told of a field, and how it is typed.

    Attributes:
        name: the flag and the YAML entry, where these are not called as the field.
        flags: instead of two dashes and the name; empty for what has an entry but no flag.
        metavar: what stands for the value in the help; by default its type.
        parse: makes a value of what a person types or writes into a file.
        several: the flag may be given again.
    """

    help: str
    name: str = ""
    flags: tuple[str, ...] | None = None
    metavar: str = ""
    parse: Callable[[Any], Any] | None = None
    several: bool = False


@dataclass(frozen=True)
class Since:
    """The default that a field had when it was introduced; it never changes.

    Where a field has this value it is left out of a run's identity, so that runs from before the
    field was there are known again, and a default that changes later gives another identity.
    """

    value: Any


@dataclass(frozen=True)
class Formerly:
    """The default that a field had from the beginning, until another took its place.

    The field stays in a run's identity; but folders of runs are called as if this still were the
    default, so that runs from before the change are found where they lie.
    """

    value: Any


class NotTheResult:
    """Marks a field that changes how a run is carried out, but not what comes out of it."""


@dataclass(frozen=True)
class Entry:
    """A declared option: its name everywhere, and the field that it fills."""

    name: str
    field: str
    hint: Any
    default: Any
    option: Option

    @property
    def flags(self) -> tuple[str, ...]:
        """As they are typed."""
        if self.option.flags is not None:
            return self.option.flags
        return (f"--{self.name.replace('_', '-')}",)

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return self.hint is bool

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""
        if self.option.metavar:
            return self.option.metavar
        kinds = [kind for kind in get_args(self.hint) or (self.hint,) if kind is not NoneType]
        if get_origin(self.hint) is Literal:
            return f"[{'|'.join(map(str, kinds))}]"
        return {int: "INTEGER", float: "NUMBER"}.get(kinds[0], "TEXT")


def hints(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, with what is `Annotated`."""
    return _hints(cls)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    from typing import get_type_hints

    resolved = get_type_hints(cls, include_extras=True)
    return {item.name: resolved[item.name] for item in fields(cls)}


def _marked(hint: Any, kind: type) -> Any:
    """The mark of that kind in an annotation; a class may stand for itself."""
    if get_origin(hint) is not Annotated:
        return None
    marks = (m for m in hint.__metadata__ if isinstance(m, kind) or m is kind)
    return next(marks, None)


def later_defaults(cls: type) -> dict[str, Any]:
    """What the fields that came later had for a default when they came."""
    marks = {name: _marked(hint, Since) for name, hint in hints(cls).items()}
    return {name: mark.value for name, mark in marks.items() if mark is not None}


def first_defaults(cls: type) -> dict[str, Any]:
    """What every field that has a default had for it when it was introduced."""
    marks = {name: _marked(hint, Formerly) for name, hint in hints(cls).items()}
    former = {name: mark.value for name, mark in marks.items() if mark is not None}
    return {item.name: item.default for item in fields(cls)} | later_defaults(cls) | former


def entries(*classes: type) -> dict[str, Entry]:
    """The options that dataclasses declare, by name, in their order."""
    return dict(_entries(*classes))


@cache
def _entries(*classes: Any) -> dict[str, Entry]:
    by_name: dict[str, Entry] = {}
    for cls in classes:
        annotated = hints(cls)
        for item in fields(cls):
            option: Option | None = _marked(annotated[item.name], Option)
            if option is not None:
                name = option.name or item.name
                assert name not in by_name, f"two options are called {name}"
                bare = get_args(annotated[item.name])[0]
                by_name[name] = Entry(name, item.name, bare, item.default, option)
    return by_name


T = TypeVar("T")
Called = Callable[[str], str]
"""How an option is called towards its user: `--batch-size`, or `batch_size in mine.yaml`."""


def plainly(name: str) -> str:
    """As in Python."""
    return name


def made(cls: type[T], given: Mapping[str, Any], called: Called = plainly, **fixed: Any) -> T:
    """A dataclass of options from values as people type them; what is not given has its default.

    Args:
        given: by the options' names; others are left alone, see `refuse_unknown`.
        fixed: further fields, by the fields' own names.

    Raises:
        InputError: names the options that cannot be used.
    """
    own = {name: entry for name, entry in entries(cls).items() if name in given}
    values = {entry.field: parsed(entry, given[name], called) for name, entry in own.items()}
    names = {entry.field: called(name) for name, entry in own.items()}
    return cls(**fixed, **valid(cls, values, lambda field: names.get(field, field)))


def parsed(entry: Entry, value: Any, called: Called = plainly) -> Any:
    """The value of what was typed for an option; its limits are checked elsewhere.

    Raises:
        InputError: it cannot be read.
    """
    if value is None or entry.option.parse is None:
        return value
    return typed(called(entry.name), value, entry.option.parse)


def typed(option: str, value: Any, parse: Callable[[Any], T]) -> T:
    """What a person typed for an option, read.

    Args:
        parse: raises a `ValueError` of what was expected, and of a hint after it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return parse(value)
    except InputError:
        raise
    except ValueError as error:
        expected, *near = error.args
        told = "".join(f".{one}" for one in near if one)
        raise InputError(f"{option} is {value!r:.100}; {expected} was expected{told}") from error


def refuse_unknown(given: Iterable[str], known: Iterable[str], place: str) -> None:
    """Refuse names that no option has.

    Raises:
        InputError: the first one, with the nearest known name.
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise InputError(f"{place} has no option {str(name)!r}.{nearest(str(name), known)}")


class Checked:
    """Base of dataclasses whose fields are checked, and converted to their types, as they enter."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __post_init__(self) -> None:
        for name, value in valid(type(self), dict(vars(self)), plainly).items():
            object.__setattr__(self, name, value)


def valid(cls: type, values: Mapping[str, Any], called: Called) -> dict[str, Any]:
    """The values, each of its field's type and inside its limits; fields may be missing.

    Raises:
        InputError: lists all that are wrong.
    """
    with refusing(called=called):
        checked = _model(cls).model_validate(dict(values))
    return {name: getattr(checked, name) for name in values}


@cache
def _model(cls: Any) -> type[BaseModel]:
    from pydantic import ConfigDict, create_model

    config = ConfigDict(
        allow_inf_nan=False, arbitrary_types_allowed=True, extra="forbid", protected_namespaces=()
    )
    defaults = {item.name: item.default for item in fields(cls)}
    given = {
        name: (hint, None if defaults[name] is MISSING else defaults[name])
        for name, hint in hints(cls).items()
    }
    return create_model(cls.__name__, __config__=config, **given)  # type: ignore[no-any-return, call-overload]


def identity(settings: Any, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What of a dataclass decides a result, by the names of its fields; see `Since`.

    Args:
        values: the fields in another form; by default as they are.
    """
    values = vars(settings) if values is None else values
    return {name: value for name, value in values.items() if name not in _left_out(settings)}


def _left_out(settings: Any) -> set[str]:
    left_out = set()
    for name, hint in hints(type(settings)).items():
        since: Since | None = _marked(hint, Since)
        as_before = since is not None and since.value == getattr(settings, name)
        if as_before or _marked(hint, NotTheResult) is not None:
            left_out.add(name)
    return left_out


# -- how values are typed ----------------------------------------------------------------------

_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIME_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_MOST_SEEDS = 1000


def byte_size(value: Any) -> float:
    """`2GB`, `500 MiB` or a number of bytes, in bytes; units are powers of 1024.

    Raises:
        ValueError: anything else.
    """
    return _quantity(value, _SIZE_UNITS, r"i?b?", "2GB or 500MB")


def duration(value: Any) -> float:
    """`90`, `90s`, `10m` or `2h`, in seconds.

    Raises:
        ValueError: anything else.
    """
    return _quantity(value, _TIME_UNITS, "", "90s, 10m or 2h")


def _quantity(value: Any, units: Mapping[str, float], ending: str, expected: str) -> float:
    if isinstance(value, int | float):
        return value
    units_named = "|".join(filter(None, units))
    pattern = rf"(\d{{1,20}}(?:\.\d+)?)\s*({units_named})?{ending}"
    match = re.fullmatch(pattern, str(value).strip().lower(), re.ASCII)
    if match is None:
        raise ValueError(expected)
    return float(match[1]) * units[match[2] or ""]  # of at most twenty digits: finite


def whole_number(value: Any) -> Any:
    """A number of something, which may be typed as 2e6; anything else is left to the check."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return int(number) if isinstance(value, str) and number == number // 1 else value


def names(value: Any) -> tuple[str, ...]:
    """`a,b` or a list of names.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, str):
        return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError("names with commas, or a list of them,")


def seeds(value: Any) -> tuple[int, ...]:
    """A number n stands for the seeds 0 to n−1; `0,1,2`, `3,` and lists for themselves.

    Raises:
        ValueError: anything else.
    """
    told = "a number of seeds, or whole numbers with commas (0,1,2, or 3, for seed 3 alone)"
    if isinstance(value, str):
        parts = value.split(",")
        if not all(re.fullmatch(r"\s*-?\d{1,20}\s*", part) for part in filter(str.strip, parts)):
            raise ValueError(told)
        listed = [int(part) for part in parts if part.strip()]
        value = listed[0] if len(parts) == 1 and listed else listed
    if isinstance(value, int) and not isinstance(value, bool):
        value = range(value) if 0 < value <= _MOST_SEEDS else []
    if not isinstance(value, list | tuple | range) or not value:
        raise ValueError(told)
    return tuple(value)


SMALLEST_SEED, LARGEST_SEED = -(2**32), 2**32 - 1
"""Generators take 64 bits; seeds are multiplied by a million, to have one for every step."""
