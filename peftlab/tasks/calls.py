"""Calls of tools in replies: how a base's chat template writes them, and what a reply says of them.

A template is a program, so its form is found by what it renders: of a call of a known name with
known arguments, the JSON object that holds both, and what stands before and after it (Hermes and
Qwen put it between `<tool_call>` and `</tool_call>`, Llama 3 writes it alone).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from peftlab.errors import InputError
from peftlab.structured import Structure
from peftlab.tasks.chat import frame
from peftlab.tasks.conversation import called
from peftlab.tasks.example import Example
from peftlab.tasks.tokens import Tokenizer

_NAME, _KEY, _VALUE = "peftlab_probe", "peftlab_key", "peftlab_value"
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

    def parsed(self, reply: str) -> tuple[str, list[Call]]:
        """What a reply says beside its calls, and these; one that is cut off or damaged is text."""
        calls, said, at = list[Call](), list[str](), 0
        mark = self.before.strip()
        while (start := self._next(reply, at, mark)) >= 0:
            found = self._call(reply, start + len(mark))
            if found is None:
                break
            call, end = found
            said.append(reply[at:start])
            calls.append(call)
            rest = reply[end:].lstrip()
            at = len(reply) - len(rest.removeprefix(self.after.strip()))
        return ("".join(said) + reply[at:]).strip(), calls

    def _next(self, reply: str, at: int, mark: str) -> int:
        if mark:
            return reply.find(mark, at)
        rest = reply[at:].lstrip()  # without a mark, a call is all that there is
        return len(reply) - len(rest) if rest.startswith("{") else -1

    def _call(self, reply: str, at: int) -> tuple[Call, int] | None:
        start = at + len(reply[at:]) - len(reply[at:].lstrip())
        try:
            found, end = _DECODER.raw_decode(reply, start)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or not isinstance(found.get(self.name), str):
            return None
        given = found.get(self.arguments, {})
        return Call(found[self.name], given if isinstance(given, str) else json.dumps(given)), end

    def structure(self, tools: Sequence[Mapping[str, Any]]) -> Structure:
        """A reply that is one call of one of these functions, its arguments of the schema."""
        options = [self._schema(tool) for tool in tools]
        return Structure.of_enclosed(self.before, {"anyOf": options}, self.after)

    def _schema(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        given = tool.get("parameters") or {"type": "object", "additionalProperties": False}
        return {
            "type": "object",
            "properties": {
                self.name: {"const": tool["name"]},
                self.arguments: {"type": "string"} if self.as_text else given,
            },
            "required": [self.name, self.arguments],
            "additionalProperties": False,
        }


def call_form(tokenizer: Tokenizer) -> CallForm:
    """How the tokenizer's chat template writes calls.

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
    text = called(tokenizer, frame(tokenizer), probe)
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
