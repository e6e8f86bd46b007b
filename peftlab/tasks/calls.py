"""Calls of tools in replies: how a base's chat template writes them, and what a reply says of them.

A template is a program, so its form is found by what it renders: of a call of a known name with
known arguments, the JSON object that holds both, and what stands before and after it (Hermes and
Qwen put it between `<tool_call>` and `</tool_call>`, Llama 3 writes it alone).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from peftlab.errors import InputError
from peftlab.structured import Structure
from peftlab.tasks.chat import Frame, frame
from peftlab.tasks.conversation import called
from peftlab.tasks.example import Example
from peftlab.tasks.tokens import Tokenizer

_NAME, _KEY, _VALUE = "peftlab_probe", "peftlab_key", "peftlab_value"
_DATA = ("const", "enum", "default", "examples")  # of a schema: no schemas themselves
_DECODER = json.JSONDecoder()


class Call(NamedTuple):
    """A tool's name, and its arguments as JSON text, as OpenAI's API has them."""

    name: str
    arguments: str


@dataclass(frozen=True)
class CallForm:
    """How calls are written.

    Attributes:
        before, after: what stands round a call's object. name, arguments: its keys. as_text: the
            arguments are JSON inside of a string.
    """

    before: str
    after: str
    name: str
    arguments: str
    as_text: bool

    def parsed(
        self, reply: str, names: Collection[str], most: int | None = None
    ) -> tuple[str, list[Call]]:
        """What a reply says beside its calls, and these.

        One that is cut off, damaged, or of what is not offered is text, as are those after `most`.

        Args:
            names: of what may be called.
        """
        calls, said, at, after_mark = list[Call](), list[str](), 0, 0
        mark, listed = self.before.strip(), self.before.rstrip().endswith("[")
        while len(calls) != most and (start := self._next(reply, after_mark, mark)) >= 0:
            found = self._call(reply, start + len(mark), names)
            after_mark = start + max(1, len(mark))
            if found is None:
                continue
            said.append(reply[at:start])
            while found is not None:
                call, end = found
                calls.append(call)
                rest = reply[end:].lstrip()
                more = listed and rest.startswith(",") and len(calls) != most
                found = self._call(reply, len(reply) - len(rest) + 1, names) if more else None
            at = after_mark = len(reply) - len(rest.removeprefix(self.after.strip()))
        return ("".join(said) + reply[at:]).strip(), calls

    def _next(self, reply: str, at: int, mark: str) -> int:
        if mark:
            return reply.find(mark, at)
        rest = reply[at:].lstrip()  # without a mark, a call is all that there is
        begins = rest.startswith("{") and not reply[:at].strip().endswith("{")
        return len(reply) - len(rest) if begins else -1

    def _call(self, reply: str, at: int, names: Collection[str]) -> tuple[Call, int] | None:
        start = at + len(reply[at:]) - len(reply[at:].lstrip())
        try:
            found, end = _DECODER.raw_decode(reply, start)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or self.arguments not in found:
            return None
        name, given = found.get(self.name), found[self.arguments]
        if not isinstance(name, str) or name not in names:
            return None
        return Call(name, given if isinstance(given, str) else json.dumps(given or {})), end

    def structure(self, tools: Sequence[Mapping[str, Any]], free: bool = False) -> Structure:
        """A reply that is one call of one of these functions, its arguments of the schema.

        Args:
            free: it may also be text, and have calls in it; arguments follow the schemas of tools
                that are strict.

        Raises:
            InputError: arguments are written as text, which no schema reaches, or are nested too
                deep.
        """
        if self.as_text:
            raise InputError(
                "this base writes the arguments of a call as text, which cannot be made to follow "
                "a schema: tool_choice auto and tools that are not strict were expected"
            )
        if free and self.before.strip() == "[":
            raise InputError(
                "this base writes a call as a list, which nothing before it tells from others: "
                "tools that are not strict, or tool_choice required, were expected"
            )
        if free:
            loose = {"type": "object"}
            tools = [
                tool if tool.get("strict") else {**tool, "parameters": loose} for tool in tools
            ]
        try:
            options = [self._schema(tool, f"#/anyOf/{i}") for i, tool in enumerate(tools)]
        except RecursionError:
            raise InputError("the parameters of a tool are nested too deep") from None
        make = Structure.of_tagged if free else Structure.of_enclosed
        return make(self.before, {"anyOf": options}, self.after)

    def _schema(self, tool: Mapping[str, Any], place: str) -> dict[str, Any]:
        given = tool.get("parameters") or {"type": "object", "additionalProperties": False}
        given = _moved(given, f"{place}/properties/{self.arguments}")
        return {
            "type": "object",
            "properties": {
                self.name: {"const": tool["name"]},
                self.arguments: given,
            },
            "required": [self.name, self.arguments],
            "additionalProperties": False,
        }


def _moved(schema: Any, place: str) -> Any:
    """A schema that stands at a place of another one: what it refers to stands there too."""
    if isinstance(schema, Mapping):
        own = {
            key: value if key in _DATA else _moved(value, place)
            for key, value in schema.items()
            if key != "$id"  # what it refers to is found by its place
        }
        target = own.get("$ref")
        if isinstance(target, str) and target.startswith("#"):
            own["$ref"] = place + target[1:]
        return own
    return [_moved(one, place) for one in schema] if isinstance(schema, list) else schema


def call_form(tokenizer: Tokenizer, own: Frame | None = None) -> CallForm:
    """How the tokenizer's chat template writes calls; or an adapter's own, where it has one.

    Raises:
        InputError: there is no chat template, it writes none, or not as JSON.
    """
    parameters = {"type": "object", "properties": {_KEY: {"type": "string"}}}
    function = {"name": _NAME, "description": "", "parameters": parameters}
    call = {"name": _NAME, "arguments": {_KEY: _VALUE}}
    probe = Example(
        "x",
        ("",),
        tools=json.dumps([{"type": "function", "function": function}]),
        calls=json.dumps([{"type": "function", "function": call}]),
    )
    shown = own if own is not None and own.jinja else frame(tokenizer)
    try:
        text = called(tokenizer, shown, probe)
    except InputError as error:
        raise InputError(
            "the base's chat template shows no calls of tools, or writes them with special tokens, "
            "so they cannot be read; leave tools out"
        ) from error
    for start in (i for i, sign in enumerate(text) if sign == "{"):
        try:
            found, end = _DECODER.raw_decode(text, start)
        except ValueError:
            continue
        keys = _keys(found)
        if keys is not None:
            return CallForm(text[:start], text[end:], *keys)
    raise InputError(
        f"the base's chat template writes calls of tools as {text!r:.120}, and not as JSON, so "
        "they cannot be read; leave tools out"
    )


def _keys(found: Any) -> tuple[str, str, bool] | None:
    if not isinstance(found, dict):
        return None
    name = next((key for key, value in found.items() if value == _NAME), None)
    for key, value in found.items():
        as_text = isinstance(value, str) and key != name and _KEY in value
        if name is not None and (value == {_KEY: _VALUE} or as_text):
            return name, key, as_text
    return None
