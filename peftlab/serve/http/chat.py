"""`POST /v1/chat/completions`, for bases whose tokenizer has a chat template."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from fastapi import Request as Http
from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from peftlab.errors import InputError
from peftlab.serve.http.answer import REASONS, STREAMED, answer
from peftlab.serve.http.completions import check_number, request
from peftlab.serve.http.errors import HttpError
from peftlab.serve.http.served import Served, served
from peftlab.serve.http.tokens import Vocabulary
from peftlab.serve.http.tools import AsksTools, Calling, SaidCall, ToolCall
from peftlab.serve.http.wire import NO_BIAS, Usage, Wire, expected
from peftlab.serve.prompt import Chat
from peftlab.serve.request import Piece, Reply, Token
from peftlab.tasks.example import Message as Turn

router = APIRouter(tags=["chat"])


class TextPart(Wire):
    """A part of a message; images and sounds are not served."""

    type: Literal["text"]
    text: str


def _is_content(value: Any) -> bool:
    return isinstance(value, str | None) or (
        isinstance(value, list)
        and all(isinstance(it, dict) and it.get("type") == "text" for it in value)
    )


class Message(Wire):
    """One turn. A developer's message is a system's."""

    unserved = {"refusal": ()}  # noqa: RUF012

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        str | list[TextPart] | None,
        expected(_is_content, "a string, or a list of parts of type text,"),
    ] = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("value_error", "tool_calls is of the assistant's messages")
        if self.content is None and not self.tool_calls:
            raise PydanticCustomError("missing", "content is missing", {"field": "content"})
        return self

    def turn(self) -> Turn:
        """As a base's template takes it."""
        parts = self.content or ""
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        role = "system" if self.role == "developer" else self.role
        calls = [one.read() for one in self.tool_calls or ()]
        name, answers = (self.name or "", self.tool_call_id or "") if role == "tool" else ("", "")
        told = json.dumps(calls, ensure_ascii=False) if calls else ""  # as it will be looked at
        return Turn(role, text, told, name, answers=answers)


class ChatRequest(AsksTools):
    """What OpenAI's client sends. max_completion_tokens is max_tokens' newer name.

    chat_template_kwargs is vLLM's: settings of the tokenizer's chat template.
    """

    unserved = {  # noqa: RUF012
        **NO_BIAS, "audio": (), "function_call": ("none",), "functions": ([],),
        "modalities": (["text"],), "prediction": (),
        "reasoning_effort": ("none",),
        "verbosity": (), "web_search_options": (),
    }  # fmt: skip

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1 << 31)
    chat_template_kwargs: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


class TopLogprob(BaseModel):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the reply, and what could have stood there."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """One entry a token."""

    content: list[TokenLogprob]
    refusal: None = None


class Said(BaseModel):
    """The assistant's message."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[SaidCall] | None = None


class ChatChoice(BaseModel):
    """One reply."""

    index: int
    message: Said
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(BaseModel):
    """The answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(BaseModel):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[SaidCall] | None = None


class ChunkChoice(BaseModel):
    """A part of one reply."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatChunk(BaseModel):
    """A chunk of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=STREAMED)
async def chat(
    asked: ChatRequest, http: Http, state: Annotated[Served, Depends(served)]
) -> Response:
    """Answer a conversation, `n` times."""
    if asked.top_logprobs and not asked.logprobs:
        raise HttpError(400, "top_logprobs is allowed where logprobs is true", param="top_logprobs")
    each = asked.n or 1
    check_number(state, each)
    asked.max_tokens = asked.max_completion_tokens or asked.max_tokens
    said = tuple(message.turn() for message in asked.messages)
    described = [tool.shown() for tool in asked.tools or ()]
    tools = json.dumps(described, ensure_ascii=False) if described else ""
    turns = Chat(said, asked.chat_template_kwargs or {}, tools)
    calling = Calling.of(asked, state)
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    requests = [request(state, asked, turns, logprobs, number) for number in range(each)]
    if calling is not None and calling.structure is not None:
        if requests[0].structure is not None:
            raise HttpError(
                400,
                f"{calling.asker} for a structure, and another field for another; one was expected",
                param="tool_choice",
            )
        requests = [replace(one, structure=calling.structure) for one in requests]
        try:
            requests[0].check()
        except InputError as error:
            raise InputError(f"{calling.asker} for a structure: {error}") from error
    return await answer(
        state,
        http,
        requests,
        _Messages(asked, state, each, calling),
        stream=bool(asked.stream),
        usage=asked.usage,
    )


def _reason(reply: Reply, calls: Sequence[SaidCall]) -> Any:
    """Why a reply ended: at calls, unless something was cut off."""
    return "tool_calls" if calls and reply.finished != "length" else REASONS[reply.finished]


class _Messages:
    """See `answer.Format`."""

    def __init__(
        self, asked: ChatRequest, state: Served, each: int, calling: Calling | None
    ) -> None:
        self.each, self._wants, self._usage = each, bool(asked.logprobs), asked.usage
        self._calling = calling
        self._words = Vocabulary(state.tokenizer)
        self._same: dict[str, Any] = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": asked.model,
        }

    def whole(self, replies: Sequence[Reply], usage: Usage) -> ChatCompletion:
        choices = [self._choice(i, it) for i, it in enumerate(replies)]
        return ChatCompletion(**self._same, object="chat.completion", choices=choices, usage=usage)

    def _choice(self, index: int, reply: Reply) -> ChatChoice:
        content, calls = self._read(reply)
        message = Said(role="assistant", content=content, refusal=None)
        if calls:
            message.tool_calls = calls
        return ChatChoice(
            index=index,
            message=message,
            logprobs=self._logprobs(reply.tokens),
            finish_reason=_reason(reply, calls),
        )

    def _read(self, reply: Reply) -> tuple[str | None, list[SaidCall]]:
        return (reply.text, []) if self._calling is None else self._calling.said(reply)

    def opening(self) -> list[BaseModel]:
        first = Delta(role="assistant", content="")
        return [self._chunk(index, first) for index in range(self.each)]

    def piece(self, index: int, piece: Piece) -> ChatChunk:
        # Where tools may be called, text is a call or none only once it is whole.
        text = None if self._calling is not None else piece.text
        return self._chunk(index, Delta(content=text), piece.tokens)

    def last(self, index: int, reply: Reply) -> ChatChunk:
        if self._calling is None:
            return self._chunk(index, Delta(), reason=REASONS[reply.finished])
        content, calls = self._read(reply)
        told = Delta(content=content)
        if calls:
            for number, call in enumerate(calls):
                call.index = number
            told.tool_calls = calls
        return self._chunk(index, told, reason=_reason(reply, calls))

    def usage(self, usage: Usage) -> ChatChunk:
        return ChatChunk(**self._same, object="chat.completion.chunk", choices=[], usage=usage)

    def _chunk(
        self, index: int, delta: Delta, tokens: Sequence[Token] = (), reason: Any = None
    ) -> ChatChunk:
        told = self._logprobs(tokens) if tokens else None
        choice = ChunkChoice(index=index, delta=delta, logprobs=told, finish_reason=reason)
        none: dict[str, Any] = {"usage": None} if self._usage else {}
        return ChatChunk(**self._same, **none, object="chat.completion.chunk", choices=[choice])

    def _logprobs(self, tokens: Sequence[Token]) -> ChatLogprobs | None:
        if not self._wants:
            return None
        return ChatLogprobs(content=[self._token(token) for token in tokens], refusal=None)

    def _token(self, token: Token) -> TokenLogprob:
        top = [self._top(other, value) for other, value in token.alternatives]
        own = self._top(token.id, token.logprob or 0.0)
        return TokenLogprob(**own.model_dump(), top_logprobs=top)

    def _top(self, token: int, value: float) -> TopLogprob:
        data = self._words.data(token)
        return TopLogprob(token=self._words.text(token), logprob=value, bytes=list(data))
