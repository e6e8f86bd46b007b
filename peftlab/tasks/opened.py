"""Text files as they come: plain or packed, in UTF-8; anything else is refused in one line."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple, cast

from peftlab.errors import InputError

PACKED = (".gz", ".bz2", ".zst")

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def suffix_of(path: Path) -> str:
    """The ending that says what a file holds, in lower case: `.jsonl` of `train.jsonl.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix


def stem_of(path: Path) -> str:
    """The name without that ending: `train` of `train.jsonl.gz`."""
    return Path(path.stem).stem if path.suffix.lower() in PACKED else path.stem


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked.

    Raises:
        InputError: it cannot be unpacked or read.
    """
    suffix = path.suffix.lower()
    try:
        with _unpacked(path, suffix) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        what = f"is not a {suffix} file that can be unpacked" if suffix in PACKED else "is unread"
        first = str(error).strip().split("\n")[0]
        raise InputError(f"{path} {what}: {first}") from error


def _unpacked(path: Path, suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path))
    if suffix == ".bz2":
        return bz2.open(path)
    if suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
    return path.open("rb")


class Line(NamedTuple):
    """A line of a text file, with its end.

    number: from 1. start, stop: where its bytes stand in the file, unpacked.
    """

    number: int
    start: int
    stop: int
    text: str


def text_lines(path: Path, shown: Path | None = None) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file; they end at \\n alone.

    Args:
        shown: what messages call the file, where it is a copy.

    Raises:
        InputError: names the line that is not UTF-8, and how to convert the file.
    """
    start, named = 0, shown or path
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith(_UTF_16):
                said = f"{named} is UTF-16; UTF-8 was expected."
                raise InputError(f"{said}{_convert(named, 'UTF-16')}")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{named}, line {number} is not UTF-8 (byte {line[error.start]:#04x} at "
                    f"position {error.start + 1}). Save the file as UTF-8."
                    f"{_convert(named, 'WINDOWS-1252')} (or whatever its encoding is)."
                ) from error
            yield Line(number, start, start + len(line), text)
            start += len(line)


def _convert(path: Path, encoding: str) -> str:
    return f" Convert it: iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"


def first_lines(path: Path, count: int) -> list[str]:
    """The first lines of a UTF-8 file that are not blank."""
    return list(islice((line.text for line in text_lines(path) if line.text.strip()), count))


def text_of(path: Path, enough: int | None = None) -> str:
    """Return the text of a UTF-8 file, or its lines until there are `enough` characters.

    Raises `InputError` where it is missing or not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    parts, size = list[str](), 0
    for line in text_lines(path):
        parts.append(line.text)
        size += len(line.text)
        if enough is not None and size >= enough:
            break
    return "".join(parts)
