"""From the columns of a table to examples: guessing names, checking values, grouping references."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftlab.errors import InputError, nearest
from peftlab.tasks.example import Example
from peftlab.tasks.files import Table
from peftlab.tasks.rows import source_hashes

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
    source = tuple(given["source"].split("+")) if "source" in given else _guess_source(table)
    target = given["target"] if "target" in given else _guess(table, TARGET_NAMES, "target", source)
    for name in (*source, target):
        if name not in known:
            raise InputError(
                f"{table.name} has no column {name!r}; it has {', '.join(known)}."
                f"{nearest(name, known)}"
            )
    return Columns(source, target, guessed=set(given) != {"source", "target"})


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
    raise InputError(
        f"{table.name} has the columns {', '.join(table.columns)}; none of them is a usual name of "
        f"a {role} ({', '.join(usual[:6])}, …). Name it: -o {role}=<column> (in "
        f'Python, {role}="<column>").'
    )


@dataclass(frozen=True)
class RowReader:
    """Makes an example of a row.

    extra: further columns that the template names. classes: names of integer class labels.
    drop_blank: leave out rows whose source or target is empty, which are an error otherwise.
    """

    table: Table
    columns: Columns
    extra: Sequence[str] = ()
    classes: Sequence[str] | None = None
    drop_blank: bool = False

    def __call__(self, index: int, row: Mapping[str, Any]) -> Example | None:
        """Return the example of row `index` of the table, or None where it is left out."""
        place, columns = self.table.place(index), self.columns
        source = "\n".join(filter(None, (text(row, name, place) for name in columns.source)))
        targets = _targets(row, columns.target, place, self.classes)
        if not source.strip() or not all(target.strip() for target in targets):
            if self.drop_blank:
                return None
            empty = columns.target if source.strip() else "+".join(columns.source)
            raise InputError(
                f"{place}: the column {empty!r} is empty. Fill it, take the row out, or load with "
                "-o drop_blank=true (in Python, drop_blank=True) to leave such rows out."
            )
        return Example(source, targets, {name: text(row, name, place) for name in self.extra})


def _value(row: Mapping[str, Any], name: str, place: str) -> Any:
    if name not in row:
        raise InputError(
            f"{place} has no column {name!r}; it has {', '.join(row)}.{nearest(name, row)}"
        )
    value = row[name]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise InputError(
            f"{place}: the column {name!r} holds {'null' if value is None else 'NaN'}; text was "
            "expected. Fill it or take the row out."
        )
    return value


def text(row: Mapping[str, Any], name: str, place: str) -> str:
    """Return the text in a column of a row. Raises `InputError` where it is missing or none."""
    return checked(_value(row, name, place), name, place)


def checked(value: Any, name: str, place: str) -> str:
    """Return `value` if it is text. Raises `InputError` that names its place if it is not."""
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(value, name, place)
        return value
    kind = "number" if isinstance(value, int | float) else type(value).__name__
    raise InputError(
        f"{place}: the column {name!r} holds the {kind} {str(value)[:40]}; text was expected. "
        "Write it as text (in quotes), or name another column."
    )


def _check_unicode(value: str, name: str, place: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: the column {name!r} holds half of a surrogate pair "
            f"({value[error.start]!a}), which is no character. Take it out of the data."
        ) from error


def _targets(
    row: Mapping[str, Any], name: str, place: str, classes: Sequence[str] | None
) -> tuple[str, ...]:
    value = _value(row, name, place)
    if classes is not None and isinstance(value, int):
        return (classes[value],)
    if not isinstance(value, list | tuple):
        return (checked(value, name, place),)
    if not value:
        raise InputError(f"{place}: the column {name!r} is an empty list; a target was expected.")
    return tuple(checked(target, name, place) for target in value)


def group(rows: Sequence[Example]) -> Sequence[Example]:
    """Join rows of the same source (and the same other fields) into one with all their targets."""
    hashes = source_hashes(rows)
    if len(set(hashes)) == len(hashes):
        return rows
    grouped: dict[tuple[str, tuple[tuple[str, str], ...]], list[Example]] = {}
    for row in rows:
        grouped.setdefault((row.source, tuple(sorted(row.fields.items()))), []).append(row)
    return [_joined(same) for same in grouped.values()]


def _joined(same: Sequence[Example]) -> Example:
    if len(same) == 1:
        return same[0]
    targets = dict.fromkeys(target for row in same for target in row.targets)
    return Example(same[0].source, tuple(targets), same[0].fields)
