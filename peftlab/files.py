"""Files: read, or refused in one sentence; written whole, or as they were before.

What is written lies in a folder of its own beside its target until all of it is there: Rust's
writers make temporary files of their own, which then lie in there too. A process that is killed
leaves such a folder, and the next one that writes beside it removes it.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from hashlib import file_digest
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from peftlab.errors import DiskFull, InputError, PeftlabError, Place, refusing

Model = TypeVar("Model", bound=BaseModel)
MOST_BYTES = 64 << 20  # of a JSON file that describes something
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this disk is used up",
    errno.EFBIG: "files may not become this large here (ulimit -f, or the file system's limit)",
}
_REFUSED = {
    errno.EROFS: "this disk is read-only",
    errno.EACCES: "there is no permission",
    errno.EPERM: "there is no permission",
    errno.ENOENT: "its folder is gone",
    errno.ENOTDIR: "a file stands where a folder was expected",
    errno.EEXIST: "a file stands where a folder was expected",
    errno.EISDIR: "a folder stands where a file was expected",
}
_IN_RUST = re.compile(r"\(os error (\d+)\)|\bcode: (\d+)")  # how Rust's errors are shown
_WRITING = ".writing-"


def read_json(path: Path) -> dict[str, Any]:
    """The object of a file.

    Raises:
        InputError: no such file, none that can be read, or no JSON object in it.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would keep its reader waiting for ever
            raise InputError(f"{path} is no regular file")
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is too large: {MOST_BYTES:,} bytes at most were expected")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise InputError(f"{path} is damaged: it is nested too deeply") from error
    except ValueError as error:  # no JSON, no UTF-8, or an integer of thousands of digits
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: an object was expected, got {type(values).__name__}")
    return values


def lines_of(text: str) -> list[str]:
    """A text's lines without their ends, which are \\n or \\r\\n and nothing else.

    `str.splitlines` ends a line at U+2028, U+2029, U+0085 and six more signs too, which stand
    unescaped inside strings of JSON and in people's texts.
    """
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def read_jsonl(path: Path) -> list[Any]:
    """The values of a file of ours, one a line.

    Raises:
        InputError: a line that is no JSON, or not UTF-8.
        FileNotFoundError: no such file.
    """
    try:
        return [json.loads(line) for line in lines_of(path.read_bytes().decode("utf-8"))]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def read_yaml(path: Path) -> Any:
    """What a file holds.

    Raises:
        InputError: it is not there, not UTF-8, or not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def checked(values: Any, model: type[Model], what: str, place: object) -> Model:
    """A file's values as a model; `what` they are and the file's `place` stand in errors.

    Raises:
        InputError: lists everything that is wrong.
    """
    before = f"The {what} {place} cannot be used: "
    with refusing(before, lambda name: name or what, partial(_names_at, model)):
        return model.model_validate(values)


def _names_at(model: type[BaseModel], place: Place) -> list[str]:
    """The fields of the model that a place inside of values belongs to."""
    for part in place[:-1]:
        if part in model.model_fields:
            model = _model_in(model.model_fields[str(part)].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def found(folder: Path, name: str) -> list[Path]:
    """What has a name (or matches a pattern) in a folder or below it, by path; nothing hidden.

    Others may write there meanwhile: a folder that goes away while it is looked into is none, where
    `Path.rglob` raises (before Python 3.13).
    """
    names = glob.glob(f"**/{name}", root_dir=folder, recursive=True)  # noqa: PTH207
    return sorted(folder / path for path in names)


def write_text(path: Path, text: str) -> None:
    """Put a text into a file, whole or not at all, see `atomically`."""
    atomically(path, lambda made: made.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Put bytes into a file, whole or not at all, see `atomically`."""
    atomically(path, lambda made: made.write_bytes(content))


def write_json(path: Path, values: Any) -> None:
    """Put JSON for people to read into a file, whole or not at all, see `atomically`."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, f"{text}\n")


def atomically(path: Path, write: Callable[[Path], object], *, lasting: bool = True) -> None:
    """Let `write` make a file at the path that it is given, then put that in the place of `path`.

    After an error, a kill or a power cut, `path` is what it was before, or whole and new.

    Args:
        lasting: false for one of many that can be computed again: it need not outlive a power
            cut, and what killed processes left is not looked for, see `tidy_up`.

    Raises:
        DiskFull: no room, no permission, or no such folder (none is made).
    """
    with writing(path), _aside(path.parent, tidy=lasting) as place:
        made = place / path.name
        write(made)
        _finish(made, place, lasting)
        made.replace(path)


@contextmanager
def together(folder: Path) -> Iterator[Path]:
    """A place to write files, which get into `folder` when all of them are there.

    Raises:
        DiskFull: see `atomically`. `folder` is as it was before.
    """
    make_folder(folder)
    with writing(folder), _aside(folder) as place:
        yield place
        whole = sorted(place.iterdir())
        for path in whole:
            for made in (path, *path.rglob("*")) if path.is_dir() else (path,):
                if made.is_file():
                    _finish(made, place)
        for path in whole:
            target = folder / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)


def append(path: Path, text: str) -> None:
    """Put a text at the end of a file, all of it or nothing.

    Raises:
        DiskFull: see `atomically`.
    """
    left = memoryview(text.encode())
    with writing(path), path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(before)
            raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        DiskFull: see `atomically`.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the system, from Python or from Rust, into one sentence about this path.

    Raises:
        DiskFull: says what is full or otherwise wrong.
    """
    try:
        yield
    except Exception as error:
        number = None if isinstance(error, PeftlabError) else _errno(error)
        if number is None:
            raise
        raise DiskFull(f"{path} cannot be written: {_reason(number)}") from error


def what_is_full(error: BaseException | None) -> str:
    """What is full, if an error or what it came from says that there is no room; else nothing."""
    while error is not None:
        if (number := _errno(error)) in _FULL:
            return _reason(number)
        error = error.__cause__
    return ""


def _errno(error: BaseException) -> int | None:
    """The system's number of an error; Rust's come as another class with the number in the text."""
    if isinstance(error, OSError):
        return error.errno
    match = None if isinstance(error, PeftlabError) else _IN_RUST.search(str(error))
    return int(match[1] or match[2]) if match else None


def _reason(number: int) -> str:
    if number in _FULL:
        return (
            f"{_FULL[number]}. What is finished is kept: make room, and give the same command again"
        )
    return _REFUSED.get(number, os.strerror(number))


def tidy_up(folder: Path) -> None:
    """Remove what killed processes had begun to write into a folder."""
    for left in folder.glob(f"{_WRITING}*"):
        process = left.name.removeprefix(_WRITING).partition("-")[0]
        if process.isdecimal() and not _is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _aside(folder: Path, *, tidy: bool = True) -> Iterator[Path]:
    """A new folder of this process in `folder`, for as long as it is needed."""
    if tidy:
        tidy_up(folder)
    place = folder / f"{_WRITING}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _finish(made: Path, place: Path, lasting: bool = True) -> None:
    """Safe on the disk, and as readable as other files: safetensors makes its own private."""
    usual = place.stat().st_mode & 0o666
    if made.stat().st_mode & 0o666 != usual:
        made.chmod(usual)
    if lasting:
        with made.open("rb") as file:
            os.fsync(file.fileno())


def digest(file: Path) -> str:
    """The fingerprint of a file's contents. Raises `InputError` for one that cannot be read."""
    try:
        about = file.stat()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): it is made use of") from error
    return _digest_of(file, about.st_mtime_ns, about.st_size)


@cache
def _digest_of(file: Path, _changed: int, _size: int) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
