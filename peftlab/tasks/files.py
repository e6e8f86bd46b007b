"""Rows from jsonl, json, csv, tsv and parquet files, each row with the place that it came from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftlab.errors import InputError

EXTENSIONS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class Table:
    """Rows of one split.

    lines: the line of each row in a text file. names: the columns, where the source declares them.
    classes: by column, the names that its integers stand for (`ClassLabel` of `datasets`).
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    lines: Sequence[int] | None = None
    names: Sequence[str] | None = None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def place(self, index: int) -> str:
        """Name row `index` in a message: `train.jsonl, line 7`."""
        if self.lines is None:
            return f"{self.name}, row {index + 1}"
        return f"{self.name}, line {self.lines[index]}"

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in the order in which they first occur."""
        if self.names is not None:
            return list(self.names)
        return list(dict.fromkeys(name for row in self.rows for name in row))


def find_splits(folder: Path) -> dict[str, Path]:
    """Return the files of `folder` that are named after a split, by split."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = split_of(path.stem)
        if path.suffix.lower() not in EXTENSIONS or split is None:
            continue
        if split in found:
            raise InputError(
                f"{folder} holds both {found[split].name} and {path.name} for the {split} split. "
                "Keep one of them."
            )
        found[split] = path
    return found


def split_of(name: str) -> str | None:
    """Return the split that a file or a split of a hub data set is named after."""
    return next((s for s, names in SPLIT_NAMES.items() if name.lower() in names), None)


def read(path: Path) -> Table:
    """Return the rows of one file.

    Raises `InputError` for a file that is missing, empty, not UTF-8 or of an unknown kind, and for
    a broken line, with its number.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} ends in {path.suffix!r}; {', '.join(EXTENSIONS)} were expected. "
            "Convert it, or rename it if it is one of these."
        )
    table = reader(path)
    if not table.rows:
        raise InputError(f"{path} is empty; at least one row was expected.")
    return table


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line) of a UTF-8 file, and name the line where it is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number} is not UTF-8 (byte {line[error.start]:#04x} at "
                    f"position {error.start + 1}). Save the file as UTF-8."
                ) from error


def text_of(path: Path, enough: int | None = None) -> str:
    """Return the text of a UTF-8 file, or its lines until there are `enough` characters.

    Raises `InputError` where it is missing or not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    parts, size = list[str](), 0
    for _, line in _text_lines(path):
        parts.append(line)
        size += len(line)
        if enough is not None and size >= enough:
            break
    return "".join(parts)


def _read_jsonl(path: Path) -> Table:
    rows, lines = [], []
    for number, line in _text_lines(path):
        if not line.strip():
            continue
        rows.append(_json_object(line, f"{path}, line {number}"))
        lines.append(number)
    return Table(str(path), rows, lines)


def _json_object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
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


def _read_json(path: Path) -> Table:
    """Read a JSON list of objects; many `.json` files are jsonl in truth, which is read too."""
    text = text_of(path)
    if not text.lstrip().startswith("["):
        return _read_jsonl(path)
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno} is not valid JSON: {error.msg}.") from error
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise InputError(
                f"{path}, row {index + 1} holds a {type(value).__name__}; an object was expected."
            )
    return Table(str(path), values)


def _read_delimited(path: Path, delimiter: str) -> Table:
    text = text_of(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            if header is None:
                header = cells
            elif cells:
                rows.append(_csv_row(header, cells, f"{path}, line {start}"))
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {start} cannot be read: {error}.") from error
    return Table(str(path), rows, lines)


def _csv_row(header: list[str], cells: list[str], place: str) -> dict[str, str]:
    if len(cells) != len(header):
        raise InputError(
            f"{place} has {len(cells)} cells; the header has {len(header)} ({', '.join(header)}). "
            "Put text that holds the separator in double quotes."
        )
    return dict(zip(header, cells, strict=True))


def _read_csv(path: Path) -> Table:
    return _read_delimited(path, ",")


def _read_tsv(path: Path) -> Table:
    return _read_delimited(path, "\t")


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a parquet file that can be read: {error}") from error
    return Table(str(path), table.to_pylist())


_READERS = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
