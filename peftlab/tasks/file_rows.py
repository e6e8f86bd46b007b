"""Rows of a large text file, which stay there: what is kept of each is where it begins.

A row as Python objects takes five times its bytes; here it takes eight bytes, and is read anew at
each access. Small files are read into memory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, overload

from peftlab import files
from peftlab.errors import DiskFull, InputError
from peftlab.tasks.opened import PACKED, Line, opened, suffix_of, text_lines
from peftlab.tasks.progress import shown
from peftlab.tasks.table import Table

LARGE = 8 << 20
"""Bytes from which rows stay in their file; the packed ones count eightfold."""
_PACKED_TO = 8


class Record(NamedTuple):
    """A row where it stands. start: its first byte. line: its first line, from 1."""

    start: int
    line: int
    row: dict[str, Any]


class Format(Protocol):
    """How rows stand in lines."""

    def records(self, lines: Iterable[Line]) -> Iterator[Record]:
        """All rows of a file."""

    def row(self, text: str, place: str) -> dict[str, Any]:
        """One of them. `place` names it in messages."""


def table_of(
    path: Path, form: Format, first: int | None = None, notes: tuple[str, ...] = ()
) -> Table:
    """The rows of a file; of a large one they stay there. first: no more than so many."""
    if first is None and is_large(path):
        rows = FileRows(path, form)
        return Table(str(path), rows, rows.lines, rows.columns, notes=notes)
    records = list(islice(form.records(text_lines(path)), first))
    return Table(
        str(path), [one.row for one in records], [one.line for one in records], notes=notes
    )


def is_large(path: Path) -> bool:
    """Whether the rows of a file are too many to be held in memory."""
    with suppress(OSError):
        return path.stat().st_size * (_PACKED_TO if path.suffix.lower() in PACKED else 1) >= LARGE
    return False


class FileRows(Sequence[Mapping[str, Any]]):
    """The rows of a text file, each checked once and then read when it is asked for.

    Attributes:
        lines: the first line of each. columns: the names of all, in the order in which they occur.

    Raises:
        InputError: a row cannot be read, or the file is another than when it was first read.
    """

    def __init__(self, path: Path, form: Format) -> None:
        self._path, self._form = path.absolute(), form
        self._told = path
        self._unpacked = _unpacked(self._path)
        self._stamp = _stamp(self._unpacked.stat())
        self._starts, numbers, names = array("Q"), array("Q"), dict[str, None]()
        lines = text_lines(self._unpacked, shown=path)
        for start, line, row in shown(form.records(lines), f"reading {path.name}"):
            self._starts.append(start)
            numbers.append(line)
            if not names.keys() >= row.keys():
                names.update(dict.fromkeys(row))
        every = range(numbers[0], numbers[0] + len(numbers)) if numbers else range(0)
        self.lines: Sequence[int] = every if numbers and numbers[-1] == every[-1] else numbers
        self.columns = list(names)
        self._open()
        self._unchanged()

    def _open(self) -> None:
        if self._unpacked != self._path and not self._unpacked.exists():  # the cache was emptied
            self._unpacked = _unpacked(self._path)
        self._lock, self._file = threading.Lock(), _raw(self._unpacked)
        weakref.finalize(self, self._file.close)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_file")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | list[Mapping[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        start = self._starts[at]
        stop = self._starts[at + 1] if at + 1 < len(self) else self._stamp[0]
        with self._lock:
            self._unchanged()
            self._file.seek(start)
            text = self._file.read(stop - start).decode("utf-8" if start else "utf-8-sig")
        return self._form.row(text, f"{self._told}, line {self.lines[at]}")

    def _unchanged(self) -> None:
        """Refuse a file that was written to since. Raises `InputError`."""
        if _stamp(os.fstat(self._file.fileno())) != self._stamp:
            raise InputError(
                f"{self._told} has changed since it was first read, so its rows are no longer "
                "those that were checked. Leave it as it is while it is used, and start again."
            )


def _raw(path: Path) -> IO[bytes]:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise InputError(f"{path} can no longer be read: {error.strerror}.") from error


def _stamp(about: os.stat_result) -> tuple[int, int]:
    return about.st_size, about.st_mtime_ns


def _unpacked(path: Path) -> Path:
    """The file itself; a packed one's rows can be read one by one only from an unpacked copy."""
    if path.suffix.lower() not in PACKED:
        return path
    told = f"{path.resolve()} {_stamp(path.stat())}"
    name = f"{hashlib.sha256(told.encode()).hexdigest()[:24]}{suffix_of(path)}"
    copy = cache_folder() / "unpacked" / name
    if not copy.exists():
        try:
            files.make_folder(copy.parent)
            with opened(path) as packed:
                files.atomically(copy, lambda made: _copied(packed, made, path.stat().st_mtime_ns))
        except DiskFull as error:
            raise InputError(
                f"{path} is packed and large, and its unpacked copy has no place: {error}. Unpack "
                "it yourself, or set PEFTLAB_CACHE to a folder that can be written."
            ) from error
    return copy


def _copied(packed: IO[bytes], made: Path, changed: int) -> None:
    with made.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    os.utime(made, ns=(changed, changed))  # so that one that is made anew is the same


def cache_folder() -> Path:
    """Where peftlab keeps what it can make again: PEFTLAB_CACHE, or the user's cache folder."""
    own = os.environ.get("PEFTLAB_CACHE")
    usual = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(usual) / "peftlab"
