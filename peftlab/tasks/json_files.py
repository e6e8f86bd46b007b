"""Rows from jsonl and json files, each with the line that it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab.errors import InputError
from peftlab.tasks.file_rows import Record, is_large, table_of
from peftlab.tasks.opened import Line, first_lines, text_of
from peftlab.tasks.table import Table, Unusable


def read_jsonl(path: Path, first: int | None = None) -> Table:
    """Rows of a file with one JSON object a line; blank lines are passed over.

    Args:
        first: no more than so many.
    """
    return table_of(path, _JsonLines(path), first)


@dataclass(frozen=True)
class _JsonLines:
    """One JSON object a line, see `file_rows.Format`."""

    path: Path

    def records(self, lines: Iterable[Line]) -> Iterator[Record]:
        for number, start, _, text in lines:
            if text.strip():
                yield Record(start, number, self.row(text, f"{self.path}, line {number}"))

    def row(self, text: str, place: str) -> dict[str, Any]:
        text = text.partition("\n")[0]  # blank lines may follow
        try:
            value = _loads(text, place)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{place} is not valid JSON: {error.msg} at column {error.colno}: {text[:60]!r}. "
                "Every line must be one JSON object."
            ) from error
        if not isinstance(value, dict):
            raise InputError(
                f"{place} holds a {type(value).__name__}; a JSON object such as "
                '{"source": "…", "target": "…"} was expected.'
            )
        return value


def read_json(path: Path, first: int | None = None) -> Table:
    """Rows of a JSON list of objects, or of an object that wraps one.

    Many `.json` files are jsonl in truth, which is read too, and may be large: a list is read into
    memory as a whole.
    """
    begun = first_lines(path, 2)
    if not begun or begun[0].lstrip()[0] not in "[{" or (len(begun) > 1 and _is_whole(begun[0])):
        return read_jsonl(path, first)
    text = text_of(path)
    try:
        value = _loads(text, str(path))
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{"):
            return read_jsonl(path, first)
        raise InputError(f"{path}, line {error.lineno} is not valid JSON: {error.msg}.") from error
    notes: tuple[str, ...] = ()
    if isinstance(value, dict):
        name, value = _wrapped(path, value)
        notes = (f'The rows of {path} are the list under "{name}".',) if name else ()
    for index, row in enumerate(value):
        if not isinstance(row, dict):
            raise InputError(
                f"{path}, row {index + 1} holds a {type(row).__name__}; an object was expected."
            )
    if is_large(path):
        notes += (
            f"The rows of {path} are a JSON list, held in memory: as jsonl they need not be.",
        )
    return Table(str(path), value[:first], notes=notes)


def _is_whole(line: str) -> bool:
    """Whether a line is an object by itself, as in jsonl."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _wrapped(path: Path, value: dict[str, Any]) -> tuple[str, list[Any]]:
    """The one list of objects inside an object, and its name; else the object as the only row."""
    lists = [name for name, part in value.items() if part and _is_objects(part)]
    if len(lists) > 1:
        raise InputError(
            f"{path} wraps several lists of rows ({', '.join(lists)}), and one was expected. Write "
            "each into a file of its own: train.json, test.json, …"
        )
    return (lists[0], value[lists[0]]) if lists else ("", [value])


def _is_objects(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(row, dict) for row in part)


def _loads(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except RecursionError as error:
        raise InputError(
            f"{place} is nested deeper than can be read. Rows were expected, objects whose values "
            "are texts."
        ) from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands in it twice with different values is of no use."""
    made = dict(pairs)
    if len(made) < len(pairs):
        for name, value in pairs:
            if made[name] != value:
                made[name] = Unusable("stands twice in this row, with different values")
    return made


def _integer(digits: str) -> int | Unusable:
    try:
        return int(digits)
    except ValueError:  # Python reads no more than 4,300 digits
        return Unusable(f"holds a number of {len(digits):,} digits")
