"""Tools in chats: what may be called, who asks for it, and what a reply calls."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from peftlab.serve.http.errors import HttpError
from peftlab.serve.http.served import Served
from peftlab.serve.http.wire import Asked, Wire
from peftlab.serve.request import Reply
from peftlab.structured import Structure
from peftlab.tasks.calls import CallForm, call_form


class Function(Wire):
    """What is called: arguments are JSON text."""

    name: str = Field(min_length=1)
    arguments: str = "{}"


class ToolCall(Wire):
    """A call of an earlier reply."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: Function

    def read(self) -> dict[str, Any]:
        """As templates take it."""
        try:
            given = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise HttpError(400, f"the arguments of a call are no JSON: {error}") from error
        function = {"name": self.function.name, "arguments": given}
        return {**({"id": self.id} if self.id else {}), "type": "function", "function": function}


class Described(Wire):
    """A function that may be called; parameters are a JSON Schema."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Wire):
    """A tool that may be called."""

    type: Literal["function"]
    function: Described

    def shown(self) -> dict[str, Any]:
        """As templates take it: how strictly it is meant is the server's business."""
        return self.model_dump(exclude_none=True, exclude={"function": {"strict"}})


class AsksTools(Asked):
    """What a chat asks of tools."""

    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None


class Called(BaseModel):
    """A function that the assistant calls."""

    name: str
    arguments: str


class SaidCall(BaseModel):
    """Such a call."""

    index: int | None = None
    id: str
    type: Literal["function"]
    function: Called


@dataclass(frozen=True)
class Calling:
    """That tools may be called.

    Attributes:
        form: how calls are written. names: of what may be called. most: calls of a reply.
        structure: of the reply, where it has to be a call, or calls have to follow schemas.
    """

    form: CallForm
    names: frozenset[str]
    most: int | None = None
    structure: Structure | None = None

    @property
    def asker(self) -> str:
        """Who asks for the structure, to begin a sentence."""
        tagged = self.structure is not None and self.structure.kind == "tagged"
        return "a tool with strict: true asks" if tagged else "tool_choice asks"

    @classmethod
    def of(cls, asked: AsksTools, state: Served) -> Calling | None:
        """What a request asks for; None: no calls.

        Raises:
            HttpError: a choice that is none, or of a tool that is not there. InputError: a base
                whose chat template knows no calls.
        """
        choice = asked.tool_choice or ("auto" if asked.tools else "none")
        functions = [tool.function.model_dump(exclude_none=True) for tool in asked.tools or ()]
        if isinstance(choice, dict):
            function = choice.get("function")
            name = function.get("name") if isinstance(function, dict) else None
            functions = [one for one in functions if one["name"] == name]
            if choice.get("type") != "function" or not functions:
                raise _no_choice(f"names {name!r:.60}, which is none of the tools")
        elif choice not in ("none", "auto", "required"):
            raise _no_choice(f"is {choice!r:.60}; none, auto, required or a function was expected")
        if choice == "none":
            return None
        if not functions:
            raise _no_choice("asks for tools, and there are none")
        adapter = state.library.get(asked.model)
        own = None if adapter is None else adapter.template.frame
        form = call_form(state.tokenizer, own)
        names = frozenset(one["name"] for one in functions)
        most = 1 if asked.parallel_tool_calls is False else None
        free = choice == "auto"
        strict = any(one.get("strict") for one in functions)
        structure = form.structure(functions, free) if strict or not free else None
        return cls(form, names, most, structure)

    def said(self, reply: Reply) -> tuple[str | None, list[SaidCall]]:
        """The text of a reply, and its calls; no text beside calls that are all that it is."""
        text, found = self.form.parsed(reply.text, self.names, self.most)
        calls = [
            SaidCall(
                id=f"call_{secrets.token_hex(12)}",
                type="function",
                function=Called(name=call.name, arguments=call.arguments),
            )
            for call in found
        ]
        return (text or None, calls) if calls else (reply.text, [])


def _no_choice(said: str) -> HttpError:
    return HttpError(400, f"tool_choice {said}", param="tool_choice")
