"""The structure that a request asks for, in OpenAI's field or in vLLM's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftlab.errors import InputError
from peftlab.serve.http.errors import HttpError
from peftlab.serve.http.wire import Asked
from peftlab.structured import Structure

_ANY_OBJECT = {"type": "object"}
_SCHEMA_KEYS = {"name", "description", "schema", "strict"}


def structure_of(asked: Asked) -> Structure | None:
    """What the reply is to follow; None: nothing.

    Raises:
        HttpError: 400, for what is no structure, and for two of them.
    """
    fields = {"response_format": _openai, "structured_outputs": _vllm}
    found = {
        name: _refusing(name, read, value)
        for name, read in fields.items()
        if (value := getattr(asked, name)) is not None
    }
    made = {name: one for name, one in found.items() if one is not None}
    if len(made) > 1:
        raise _bad(
            "structured_outputs", "response_format asks for a structure too; one was expected"
        )
    return next(iter(made.values()), None)


def _openai(asked: Mapping[str, Any]) -> Structure | None:
    kind = asked.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Structure.of_schema(_ANY_OBJECT)
    if kind != "json_schema":
        raise InputError(f"type is {kind!r:.60}; text, json_object or json_schema was expected")
    told = asked.get("json_schema")
    if not isinstance(told, dict) or "schema" not in told:
        raise InputError("json_schema was expected to hold a name and a schema")
    if unknown := sorted(set(told) - _SCHEMA_KEYS):
        raise InputError(
            f"json_schema holds {unknown[0]!r:.60}; {sorted(_SCHEMA_KEYS)} was expected"
        )
    return Structure.of_schema(told["schema"])


def _vllm(asked: Mapping[str, Any]) -> Structure | None:
    given = {
        name: value for name, value in asked.items() if value is not None and value is not False
    }
    if not given:
        return None
    (name, value), *others = given.items()
    if others or name not in _KINDS:
        raise InputError(
            f"it holds {', '.join(given)!s:.100}; one of {', '.join(_KINDS)} was expected"
        )
    return _KINDS[name](value)


def _text(kind: Any) -> Callable[[Any], Structure]:
    def read(value: Any) -> Structure:
        if not isinstance(value, str) or not value:
            raise InputError(f"{kind} is {value!r:.60}; a text was expected")
        return Structure(kind, value)

    return read


def _texts(value: Any) -> Structure:
    return Structure.of_choices(value if isinstance(value, list) else [])


_KINDS: dict[str, Callable[[Any], Structure]] = {
    "json": Structure.of_schema,
    "json_object": lambda _: Structure.of_schema(_ANY_OBJECT),
    "regex": _text("regex"),
    "choice": _texts,
    "grammar": _text("grammar"),
}


def _refusing(
    name: str, read: Callable[[Mapping[str, Any]], Structure | None], value: Mapping[str, Any]
) -> Structure | None:
    try:
        return read(value)
    except InputError as error:
        raise _bad(name, str(error)) from error


def _bad(name: str, said: str) -> HttpError:
    return HttpError(400, f"{name}: {said}", param=name)
