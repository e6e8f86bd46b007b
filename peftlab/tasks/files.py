"""Rows from jsonl, json, csv, tsv, parquet and WebNLG's xml files."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from peftlab.errors import InputError
from peftlab.tasks.delimited import read_csv, read_tsv
from peftlab.tasks.file_rows import cache_folder, is_large
from peftlab.tasks.json_files import read_json, read_jsonl
from peftlab.tasks.opened import PACKED, suffix_of
from peftlab.tasks.opened import text_of as text_of
from peftlab.tasks.table import Table as Table
from peftlab.tasks.table import Unusable
from peftlab.tasks.webnlg_xml import read_webnlg

MOST_FILES = 100_000

_ADVICE = {
    ".zip": "Unpack it first.",
    ".tar": "Unpack it first.",
    ".xz": "Unpack it first (unxz), or pack it with gzip or zstd.",
    ".xlsx": "Save the sheet as csv, in UTF-8.",
    ".arrow": "Give the folder that datasets saved it in.",
}


def read(path: Path, first: int | None = None) -> Table:
    """Return the rows of a file, whose ending says what it is; `.gz`, `.bz2`, `.zst` are unpacked.

    Args:
        first: no more than so many; of jsonl, csv, tsv and parquet no more is read than they need.

    Raises `InputError` for a file that is missing, empty, not UTF-8 or of an unknown kind, and for
    a broken line, with its number.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    suffix = suffix_of(path)
    reader = _READERS.get(suffix)
    if reader is None:
        advice = _ADVICE.get(suffix, "Convert it, or rename it if it is one of these.")
        raise InputError(
            f"{path} ends in {suffix!r}; {', '.join(EXTENSIONS)} were expected (packed as "
            f"{', '.join(PACKED)} or not). {advice}"
        )
    table = reader(path, first)
    if not len(table.rows):
        raise InputError(f"{path} is empty; at least one row was expected.")
    return table


def _read_parquet(path: Path, first: int | None = None) -> Table:
    import pyarrow
    import pyarrow.parquet

    if path.suffix.lower() in PACKED:
        raise InputError(f"{path} is a packed parquet file: unpack it (parquet packs by itself).")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names: list[str] = file.schema_arrow.names
            if first is None and is_large(path) and len(set(names)) == len(names):
                return _mapped_parquet(path)
            table = file.read() if first is None else _first_of(file, first)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a parquet file that can be read: {error}") from error
    columns = [_values(column) for column in table.columns]
    for at, name in enumerate(names):
        if names.count(name) > 1:
            columns[at] = [Unusable("stands twice in the file")] * table.num_rows
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return Table(str(path), rows)


def _mapped_parquet(path: Path) -> Table:
    """Rows that stay on disk, where `datasets` unpacks them to: parquet has no single rows."""
    import datasets

    try:
        rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(cache_folder() / "parquet"))
    except Exception as error:  # datasets raises errors of a dozen libraries from here
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{path} is not a parquet file that can be read: {first}") from error
    return Table(str(path), rows, names=rows.column_names)


def _first_of(file: Any, count: int) -> Any:
    """A parquet file's first rows, as a table."""
    import pyarrow

    batches = list(islice(file.iter_batches(count), 1))
    return pyarrow.Table.from_batches(batches, file.schema_arrow)


def _values(column: Any) -> list[Any]:
    """A column's values; one that Python cannot hold (a date of the year 30000, say) is marked."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, ArithmeticError, NotImplementedError):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, ArithmeticError, NotImplementedError) as error:
        first = str(error).split("\n")[0]
        return Unusable(f"holds a {scalar.type} that Python cannot hold ({first})")


_READERS: dict[str, Callable[[Path, int | None], Table]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": _read_parquet,
    ".xml": read_webnlg,
}
EXTENSIONS = tuple(_READERS)


def data_files(folder: Path, *, below: bool = False) -> list[Path]:
    """The files of rows in a folder (and in those below it), sorted.

    Raises:
        InputError: a folder cannot be read, or there are so many that this is no data set.
    """
    paths: list[Path] = []
    seen = 0
    for place, _, names in os.walk(folder, onerror=_refuse_unreadable):
        paths += [Path(place, name) for name in names if is_data(Path(name))]
        seen += 1 + len(names)
        if not below:
            break
        if seen > MOST_FILES:
            raise InputError(
                f"{folder} holds more than {MOST_FILES:,} files and folders; the folder of one "
                "data set was expected."
            )
    return sorted(path for path in paths if os.path.isfile(path))  # noqa: PTH113 (never raises)


def _refuse_unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}.") from error


def are_large(place: Path) -> bool:
    """Whether a file, or one in a folder, is too large to be read while somebody waits."""
    return any(map(is_large, data_files(place) if place.is_dir() else [place]))


def is_data(path: Path) -> bool:
    """Whether a file's name says that it holds rows."""
    return suffix_of(path) in _READERS
