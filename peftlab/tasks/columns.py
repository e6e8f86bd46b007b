"""From the columns of a table to examples: guessing names, checking values, grouping references."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftlab.errors import InputError, nearest
from peftlab.tasks import choices
from peftlab.tasks.example import Example
from peftlab.tasks.hashes import recurring
from peftlab.tasks.rows import grouped, source_hashes
from peftlab.tasks.table import Table, Unusable

SOURCE_NAMES = (
    *("source", "src", "input", "article", "document", "dialogue", "dialog", "conversation"),
    *("meaning_representation", "prompt", "question", "context", "passage", "instruction"),
    *("text", "sentence", "content"),
)
TARGET_NAMES = (
    *("targets", "target", "tgt", "references", "reference", "highlights", "summary", "summaries"),
    *("human_reference", "output", "outputs", "response", "completion", "answer", "answers"),
    *("label", "labels", "headline", "title"),
)


LABEL_NAMES = ("label", "labels")
TURN_NAMES = ("system", "history", "messages", "conversations", "tools")
"""Columns of a conversation beside its last turns."""

_LETTERS = tuple("ABCDEFGHIJ")
_OPTIONAL = "input"  # Alpaca's: null, or not there, where the instruction says it all


@dataclass(frozen=True)
class Columns:
    """Which columns are the source (several are joined by line breaks) and the target."""

    source: tuple[str, ...]
    target: str
    guessed: bool = False

    def __str__(self) -> str:
        return f"source={'+'.join(self.source)}, target={self.target}"


def choose(table: Table, given: Mapping[str, str]) -> Columns:
    """Return the columns that are given, and the most usual names for those that are not.

    given: may hold "source" (several joined by "+") and "target".
    Raises `InputError` for a column that the table lacks, and where no usual name is found.
    """
    known = table.columns
    source = _parts(given["source"], known) if "source" in given else _guess_source(table)
    target = given["target"] if "target" in given else _guess(table, TARGET_NAMES, "target", source)
    for name in (*source, target):
        if name not in known and name.partition(".")[0] not in known:
            raise InputError(
                f"{table.name} has no column {name!r}; it has {', '.join(known)}."
                f"{nearest(name, known)}"
            )
    return Columns(source, target, guessed=set(given) != {"source", "target"})


def _parts(given: str, known: Sequence[str]) -> tuple[str, ...]:
    return (given,) if given in known else tuple(given.split("+"))


def unused(table: Table, columns: Columns, extra: Sequence[str]) -> str:
    """Say which columns stay out of the rows: `; not used: id, history`, or nothing."""
    return not_used(table, [*columns.source, columns.target, *extra])


def not_used(table: Table, names: Sequence[str]) -> str:
    """The same of any columns that are read."""
    used = set(names)
    heads = {name.partition(".")[0] for name in used}
    rest = [name for name in table.columns if name not in used | heads]
    if not rest:
        return ""
    turns = [name for name in rest if name.lower() in TURN_NAMES]
    warned = f" (replies depend on {' and '.join(turns)}, which no row shows)" if turns else ""
    return f"; not used: {', '.join(rest)}{warned}"


def _guess_source(table: Table) -> tuple[str, ...]:
    # Alpaca's layout: what to do, and what to do it to.
    if {"instruction", "input", "output"} <= {name.lower() for name in table.columns}:
        return _named(table, "instruction"), _named(table, "input")
    return (_guess(table, SOURCE_NAMES, "source", ()),)


def _named(table: Table, lower: str) -> str:
    return next(name for name in table.columns if name.lower() == lower)


def _guess(table: Table, usual: Sequence[str], role: str, taken: tuple[str, ...]) -> str:
    by_lower = {name.lower(): name for name in table.columns if name not in taken}
    for name in usual:
        if name in by_lower:
            return by_lower[name]
    inner = [f"{name}.{part}" for name, part in _members(table) if name not in taken]
    within = f" A column inside another has a dot: {', '.join(inner[:6])}." if inner else ""
    raise InputError(
        f"{table.name} has the columns {', '.join(table.columns)}; none of them is a usual name of "
        f"a {role} ({', '.join(usual[:6])}, …). Name it: -o {role}=<column> (in Python, "
        f"columns={{'{role}': '<column>'}}).{within}"
    )


def _members(table: Table) -> list[tuple[str, str]]:
    first = table.rows[0]
    structs = {name: value for name, value in first.items() if isinstance(value, Mapping)}
    return [(name, part) for name, value in structs.items() for part in value]


@dataclass(frozen=True)
class RowReader:
    """Makes an example of a row.

    extra: further columns that the template names. labels: the target is a class label, of these
    where they are known. classes: names of integer class labels. drop_blank: leave out rows whose
    source or target is empty or null, which are an error otherwise. options: the column of each
    row's options, of which the target is one, or its number from 0, or its letter; read_as: which
    of these were met.
    """

    table: Table
    columns: Columns
    extra: Sequence[str] = ()
    labels: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    drop_blank: bool = False
    options: str | None = None
    read_as: set[str] = field(default_factory=set, compare=False)

    def __call__(self, index: int, row: Mapping[str, Any]) -> Example | None:
        """Return the example of row `index` of the table, or None where it is left out."""
        place, columns = self.table.place(index), self.columns
        source = "\n".join(filter(None, (self._source(row, n, place) for n in columns.source)))
        options = self._options(row, place)
        targets = self._one_of(options, row, place) if options else self._targets(row, place)
        if not source.strip() or not targets or not all(target.strip() for target in targets):
            if self.drop_blank:
                return None
            empty = columns.target if source.strip() else "+".join(columns.source)
            raise InputError(f"{place}: the column {empty!r} is empty. Fill it, or {LEAVE_OUT}")
        fields = {name: text(row, name, place) for name in self.extra}
        return Example(source, targets, fields, options=options)

    def _options(self, row: Mapping[str, Any], place: str) -> tuple[str, ...]:
        if self.options is None:
            return ()
        value = parsed(at(row, self.options, place))
        if not isinstance(value, list | tuple):
            raise InputError(
                f"{place}: the column {self.options!r} holds {value!r:.40}; a list of options was "
                "expected."
            )
        return choices.checked([checked(each, self.options, place) for each in value], place)

    def _one_of(
        self, options: tuple[str, ...], row: Mapping[str, Any], place: str
    ) -> tuple[str, ...]:
        """The target among a row's options, by its text, its number or its letter."""
        value = at(row, self.columns.target, place)
        target = str(value).strip() if isinstance(value, int | str) else ""
        if self.drop_blank and (_is_null(value) or target in ("", "-1")):
            return ("",)
        number = int(target) if target.isdecimal() else -1
        by_number = options[number] if 0 <= number < len(options) else None
        if target in options:
            if by_number is not None and by_number != target and not isinstance(value, str):
                raise InputError(
                    f"{place}: the column {self.columns.target!r} holds the number {number}, which "
                    f"is one of the options and the place of another ({by_number!r:.40}): write "
                    "the option as text."
                )
            self.read_as.add("text")
            return (target,)
        if by_number is not None:
            self.read_as.add("number from 0")
            return (by_number,)
        if target in _LETTERS and _LETTERS.index(target) < len(options):
            self.read_as.add("letter")
            return (options[_LETTERS.index(target)],)
        raise InputError(
            f"{place}: the column {self.columns.target!r} holds {value!r:.40}, which is none of "
            f"the options {', '.join(options)!r:.80}, nor the number (from 0) or letter of one. "
            f"Mend it, or {LEAVE_OUT}"
        )

    def _source(self, row: Mapping[str, Any], name: str, place: str) -> str:
        """One of the source's columns; Alpaca's input may be null or missing, others may not."""
        optional = name.lower() == _OPTIONAL and len(self.columns.source) > 1
        if optional and name not in row:
            return ""
        value = at(row, name, place)
        return "" if _is_null(value) and (optional or self.drop_blank) else text(row, name, place)

    def _targets(self, row: Mapping[str, Any], place: str) -> tuple[str, ...]:
        name = self.columns.target
        value = at(row, name, place)
        values = value if isinstance(value, list | tuple) else [value]
        if not values and not self.drop_blank:
            raise InputError(
                f"{place}: the column {name!r} is an empty list; a target was expected."
            )
        if self.drop_blank:
            values = ["" if _is_null(each) else each for each in values]
        make = checked if self.labels is None else self._label
        return tuple(make(each, name, place) for each in values)

    def _label(self, value: Any, name: str, place: str) -> str:
        """The name of a class label: integers and truth values are written out."""
        if value in (-1, "-1") and "-1" not in (self.labels or ()):
            if self.drop_blank:
                return ""
            raise InputError(
                f'{place}: the column {name!r} holds -1, which data sets write for "no label". '
                f"Either {LEAVE_OUT} Or, where -1 is a class, name all: -o labels=-1,0,1."
            )
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, int):
            return checked(value, name, place)
        if self.classes is None or value == -1:
            return str(value)
        if not 0 <= value < len(self.classes):
            raise InputError(
                f"{place}: the column {name!r} holds {value}, and its classes are 0 to "
                f"{len(self.classes) - 1} ({', '.join(self.classes[:6])}, …)."
            )
        return self.classes[value]


LEAVE_OUT = "leave out such rows: -o drop_blank=true (in Python, drop_blank=True)."


def at(row: Mapping[str, Any], path: str, place: str) -> Any:
    """Return the value of a column, or at a dotted path; a list of structs gives the members'.

    Raises `InputError` where there is none, and for one that could not be read.
    """
    value: Any = row
    for name in [path] if path in row else path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and all(name in item for item in value):
            value = [item[name] for item in value]
        else:
            raise InputError(
                f"{place} has no column {path!r}; it has {', '.join(row)}.{nearest(path, row)}"
            )
    if isinstance(value, Unusable):
        raise InputError(f"{place}: the column {path!r} {value.reason}. Take it out of the data.")
    return value


def parsed(value: Any) -> Any:
    """Lists and objects that a csv file holds as JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def text(row: Mapping[str, Any], name: str, place: str) -> str:
    """Return the text in a column of a row. Raises `InputError` where it is missing or none."""
    return checked(at(row, name, place), name, place)


def checked(value: Any, name: str, place: str) -> str:
    """Return `value` if it is text. Raises `InputError` that names its place if it is not."""
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(value, name, place)
        return value
    if _is_null(value):
        raise InputError(
            f"{place}: the column {name!r} holds {'null' if value is None else 'NaN'}; text was "
            f"expected. Fill it, or {LEAVE_OUT}"
        )
    if isinstance(value, Unusable):
        raise InputError(f"{place}: the column {name!r} {value.reason}. Take it out of the data.")
    if isinstance(value, Mapping):
        inner = ", ".join(f"{name}.{part}" for part in list(value)[:6])
        raise InputError(
            f"{place}: the column {name!r} holds the dict of {inner or 'nothing'}; text was "
            "expected. Name a column inside it, with the dot."
        )
    kind = "number" if isinstance(value, int | float) else type(value).__name__
    shown = "" if isinstance(value, list) else f" {str(value)[:40]}"
    raise InputError(
        f"{place}: the column {name!r} holds the {kind}{shown}; text was expected. Write it as "
        "text (in quotes), or name another column."
    )


def _check_unicode(value: str, name: str, place: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: the column {name!r} holds half of a surrogate pair "
            f"({value[error.start]!a}), which is no character. Take it out of the data."
        ) from error


def group(rows: Sequence[Example]) -> Sequence[Example]:
    """Join rows of the same source (and the same other fields) into one with all their targets."""
    return grouped(rows, _joined)


def _joined(same: Sequence[Example]) -> Example:
    """All targets, equal ones as often as they are there: NIST and CIDEr count them so."""
    if len(same) == 1:
        return same[0]
    targets = tuple(target for row in same for target in row.targets)
    return Example(same[0].source, targets, same[0].fields)


def disputed(rows: Sequence[Example]) -> int:
    """Return how many sources have several different targets, in rows of their own."""
    targets_of: dict[int, set[int]] = {}
    for place in recurring(source_hashes(rows)):
        row = rows[place]
        targets_of.setdefault(hash(row.source), set()).update(map(hash, row.targets))
    return sum(len(targets) > 1 for targets in targets_of.values())
