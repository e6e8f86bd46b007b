"""`POST /v1/chat/completions`, for bases whose tokenizer has a chat template."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from fastapi import Request as Http
from pydantic import BaseModel, Field

from peftlab.serve.http.answer import REASONS, STREAMED, answer
from peftlab.serve.http.completions import check_number, request
from peftlab.serve.http.errors import HttpError
from peftlab.serve.http.served import Served, served
from peftlab.serve.http.tokens import Vocabulary
from peftlab.serve.http.wire import NO_BIAS, Asked, Usage, Wire, expected
from peftlab.serve.prompt import Chat
from peftlab.serve.request import Piece, Reply, Token

router = APIRouter(tags=["chat"])


class TextPart(Wire):
    """A part of a message; images and sounds are not served."""

    type: Literal["text"]
    text: str


def _is_content(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list)
        and all(isinstance(it, dict) and it.get("type") == "text" for it in value)
    )


class Message(Wire):
    """One turn. A developer's message is a system's."""

    unserved = {"name": (), "refusal": (), "tool_calls": ([],)}  # noqa: RUF012

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        str | list[TextPart], expected(_is_content, "a string, or a list of parts of type text,")
    ]

    def turn(self) -> tuple[str, str]:
        """(role, text)."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return "system" if self.role == "developer" else self.role, text


class ChatRequest(Asked):
    """What OpenAI's client sends. max_completion_tokens is max_tokens' newer name.

    chat_template_kwargs is vLLM's: settings of the tokenizer's chat template.
    """

    unserved = {  # noqa: RUF012
        **NO_BIAS, "audio": (), "function_call": ("none",), "functions": ([],),
        "modalities": (["text"],), "parallel_tool_calls": (False, True), "prediction": (),
        "reasoning_effort": ("none",),
        "tool_choice": ("none",), "tools": ([],), "verbosity": (), "web_search_options": (),
    }  # fmt: skip

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=1 << 31)
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
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One reply."""

    index: int
    message: Said
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


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


class ChunkChoice(BaseModel):
    """A part of one reply."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"] | None


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
    turns = Chat(said, asked.chat_template_kwargs or {})
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    return await answer(
        state,
        http,
        [request(state, asked, turns, logprobs, number) for number in range(each)],
        _Messages(asked, state, each),
        stream=bool(asked.stream),
        usage=asked.usage,
    )


class _Messages:
    """See `answer.Format`."""

    def __init__(self, asked: ChatRequest, state: Served, each: int) -> None:
        self.each, self._wants, self._usage = each, bool(asked.logprobs), asked.usage
        self._words = Vocabulary(state.tokenizer)
        self._same: dict[str, Any] = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": asked.model,
        }

    def whole(self, replies: Sequence[Reply], usage: Usage) -> ChatCompletion:
        choices = [
            ChatChoice(
                index=i,
                message=Said(role="assistant", content=it.text, refusal=None),
                logprobs=self._logprobs(it.tokens),
                finish_reason=REASONS[it.finished],
            )
            for i, it in enumerate(replies)
        ]
        return ChatCompletion(**self._same, object="chat.completion", choices=choices, usage=usage)

    def opening(self) -> list[BaseModel]:
        first = Delta(role="assistant", content="")
        return [self._chunk(index, first) for index in range(self.each)]

    def piece(self, index: int, piece: Piece) -> ChatChunk:
        return self._chunk(index, Delta(content=piece.text), piece.tokens)

    def last(self, index: int, reply: Reply) -> ChatChunk:
        return self._chunk(index, Delta(), reason=REASONS[reply.finished])

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
