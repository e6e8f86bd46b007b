"""Rows of token ids in files, tokenised once for all runs that share a folder.

Of a large data set a run needs some rows, each when its step comes; it writes what it has
tokenised, and finds what others have. A row is looked up by its number, and is used only if it is
whole and was made of the very example that stands there now: what a killed process, a full disk or
another writer has left is tokenised again.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import warnings
import weakref
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO

from peftlab.errors import PeftlabError
from peftlab.files import make_folder
from peftlab.tasks import Encoded, Example

_HEAD = struct.Struct("<QIQ")  # the row's number, its words, the example's digest
_SUM = struct.Struct("<I")  # of the head and the words, which follow
_PLACE = struct.Struct("<Q")
_RESERVE = 2 << 30  # bytes that are never taken from a disk


@dataclass(frozen=True)
class Kept:
    """Where the rows of a split are kept.

    folder: that several runs may share; None: one of this process's own, which goes with it.
    """

    folder: Path | None
    split: str

    def file(self, name: str) -> TokenFile | None:
        """The file of rows that are encoded in one way; none where nothing can be written."""
        try:
            if self.folder is not None:
                return TokenFile(self.folder / self.split, name)
            own = Path(tempfile.mkdtemp(prefix="peftlab-tokens-"))
            made = TokenFile(own, name)
            weakref.finalize(made, shutil.rmtree, own, ignore_errors=True)
            return made
        except (OSError, PeftlabError) as error:
            _warn(error)
            return None


class TokenFile:
    """Encoded rows by number.

    Args:
        folder: where the files are, made where it is missing; several processes may share it.
        name: of the files; it stands for all that rows hang on besides their examples.
    """

    def __init__(self, folder: Path, name: str) -> None:
        make_folder(folder)
        self._folder, self._full = folder, False
        self._rows = _opened(folder / f"{name}.rows")
        self._places = _opened(folder / f"{name}.places")
        self._append = (folder / f"{name}.rows").open("ab", buffering=0)
        for file in (self._rows, self._places, self._append):
            weakref.finalize(self, file.close)

    def get(self, number: int, digest: int) -> Encoded | None:
        """The row, if it is there, whole, and was made of the example of this digest."""
        try:
            place = _read(self._places, number * _PLACE.size, _PLACE.size)
            start = _PLACE.unpack(place)[0] if len(place) == _PLACE.size else 0
            size = os.fstat(self._rows.fileno()).st_size
            if not 0 < start <= size:
                return None
            head = _read(self._rows, start - 1, _HEAD.size + _SUM.size)
            if len(head) < _HEAD.size + _SUM.size:
                return None
            whose, count, made_of = _HEAD.unpack_from(head)
            if (whose, made_of) != (number, digest) or start - 1 + 4 * count > size:
                return None
            words = self._rows.read(count * 4)
        except OSError:
            return None
        whole = len(words) == count * 4 and _SUM.unpack_from(head, _HEAD.size)[0] == _checksum(
            head[: _HEAD.size], words
        )
        return _row(iter(array("i", words))) if whole else None

    def put(self, number: int, digest: int, row: Encoded) -> None:
        """Keep a row; on a full disk none is kept any longer."""
        if self._full:
            return
        words = array("i", _words(row)).tobytes()
        head = _HEAD.pack(number, len(words) // 4, digest)
        record = head + _SUM.pack(_checksum(head, words)) + words
        try:
            if shutil.disk_usage(self._folder).free < _RESERVE:
                raise OSError("less than 2 GiB are left on the disk")
            if self._append.write(record) != len(record):
                raise OSError("the disk is full")
            start = self._append.tell() - len(record)
            self._places.seek(number * _PLACE.size)
            self._places.write(_PLACE.pack(start + 1))
        except OSError as error:
            self._full = True
            _warn(error)


def _warn(error: Exception) -> None:
    warnings.warn(f"rows are tokenised anew each time that they are needed: {error}", stacklevel=3)


def _checksum(head: bytes, words: bytes) -> int:
    return zlib.crc32(words, zlib.crc32(head))


def digest_of(example: Example, target: str) -> int:
    """A number for what a row is made of, in sixty-four bits."""
    told = repr((target, example.to_dict())).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(told, digest_size=8).digest(), "little")


def _opened(path: Path) -> IO[bytes]:
    """A file to read and write anywhere in, made where it is missing."""
    path.touch()
    return path.open("r+b", buffering=0)


def _read(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _words(row: Encoded) -> Iterator[int]:
    """A row as numbers, from which `_row` makes it again."""
    yield from (len(row.ids), len(row.spans), row.dropped, -1 if row.begin is None else row.begin)
    yield from (len(row.rivals), len(row.beside), *row.ids)
    yield from (edge for span in row.spans for edge in span)
    for rival in row.rivals:
        yield from (len(rival), *rival)
    for other in row.beside:
        yield from _words(other)


def _row(words: Iterator[int]) -> Encoded:
    def some(count: int) -> tuple[int, ...]:
        return tuple(next(words) for _ in range(count))

    ids, spans, dropped, begin, rivals, beside = some(6)
    return Encoded(
        some(ids),
        tuple((next(words), next(words)) for _ in range(spans)),
        dropped,
        None if begin < 0 else begin,
        tuple(some(next(words)) for _ in range(rivals)),
        tuple(_row(words) for _ in range(beside)),
    )
