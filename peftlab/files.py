"""Files that people write and that can be damaged: read, or refused in one sentence."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from peftlab.errors import InputError, Place, refusing

Model = TypeVar("Model", bound=BaseModel)
MOST_BYTES = 64 << 20  # of a JSON file that describes something


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
