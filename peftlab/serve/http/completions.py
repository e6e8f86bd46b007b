"""`POST /v1/completions`: texts continued, or answered as an adapter has learnt to."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from fastapi import Request as Http
from pydantic import BaseModel, Field, model_validator

from peftlab.serve.http.answer import REASONS, STREAMED, answer
from peftlab.serve.http.errors import HttpError
from peftlab.serve.http.served import Served, served
from peftlab.serve.http.structure import structure_of
from peftlab.serve.http.tokens import Offsets, Vocabulary
from peftlab.serve.http.wire import NO_BIAS, Asked, Usage, expected, refused
from peftlab.serve.prompt import Source
from peftlab.serve.request import Piece, Reply, ServeRequest, Token
from peftlab.tasks import Example

router = APIRouter(tags=["completions"])


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if not isinstance(value, list) or not value:
        return False
    kind = type(value[0])
    if kind is list:
        return all(type(one) is list and one and _all(int, one) for one in value)
    return kind in (str, int) and _all(kind, value)


def _all(kind: type, values: list[Any]) -> bool:
    return all(type(value) is kind for value in values)  # True is no token


Prompt = Annotated[
    str | list[str] | list[int] | list[list[int]],
    expected(
        _is_prompt, "a string, a list of strings, a list of token ids or a list of such lists"
    ),
]


class CompletionRequest(Asked):
    """What OpenAI's client sends.

    A text is the source of the adapter's own template; token ids stand as they are, after the
    adapter's pseudo tokens, without its template. fields: other columns that the template names.
    echo: tell the prompt too, as the model reads it, with its log-probabilities where these are
    asked for; max_tokens may then be 0.
    """

    unserved = {**NO_BIAS, "best_of": (1,), "suffix": ("",)}  # noqa: RUF012

    prompt: Prompt
    logprobs: int | None = Field(default=None, ge=0, le=20)
    max_tokens: int | None = Field(default=None, ge=0, le=1 << 31)
    echo: bool | None = None
    fields: dict[str, str] | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise refused("max_tokens", "max_tokens is 0; at least 1, or echo, was expected")
        return self

    def sources(self) -> list[Source]:
        """The prompts, one each."""
        given: Any = self.prompt
        if isinstance(given, str) or isinstance(given[0], int):
            given = [given]
        return [self._source(one) for one in given]

    def _source(self, one: str | list[int]) -> Source:
        if isinstance(one, str):
            return Example(one, (), self.fields or {})
        return tuple(one)


class Logprobs(BaseModel):
    """One entry a token. text_offset: where it begins in the reply, in characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Choice(BaseModel):
    """One reply, or a part of it."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(BaseModel):
    """The answer, and the chunks of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


@router.post("/v1/completions", response_model=Completion, responses=STREAMED)
async def completions(
    asked: CompletionRequest, http: Http, state: Annotated[Served, Depends(served)]
) -> Response:
    """Answer one or many prompts, each `n` times."""
    each = asked.n or 1
    sources = asked.sources()
    check_number(state, len(sources) * each)
    if asked.echo and asked.stream:
        raise HttpError(400, "echo is not streamed; leave one of them out", param="echo")
    read = asked.logprobs if asked.echo else None
    if asked.echo and asked.max_tokens == 0:
        read = read or 0  # the prompt alone is asked about
    requests = [
        replace(request(state, asked, source, asked.logprobs, number), prompt_logprobs=read)
        for source in sources
        for number in range(each)
    ]
    return await answer(
        state,
        http,
        requests,
        _Text(asked, state, each),
        stream=bool(asked.stream),
        usage=asked.usage,
    )


def check_number(state: Served, replies: int) -> None:
    """Refuse a request for too many replies."""
    if replies > state.settings.replies:
        raise HttpError(
            400,
            f"{replies} replies are asked for at once (prompts times n); at most "
            f"{state.settings.replies} were expected",
            param="n",
        )


def request(
    state: Served, asked: Asked, source: Source, logprobs: int | None, number: int
) -> ServeRequest:
    """The engine's request for reply `number` of the `n` to one source."""
    limit = state.engine.limits.max_new_tokens
    most = state.settings.max_tokens if asked.max_tokens is None else asked.max_tokens
    least = asked.min_tokens or 0
    if most > limit:
        raise _outside("max_tokens", most, f"at most {limit:,}")
    if least > most:
        raise _outside("min_tokens", least, f"at most {most:,}, as max_tokens says,")
    return ServeRequest(
        adapter=asked.model,
        source=source,
        max_new_tokens=most,
        min_new_tokens=least,
        decoding=asked.decoding(state.settings),
        seed=None if asked.seed is None else asked.seed + number,
        stop=asked.stops,
        stop_ids=tuple(asked.stop_token_ids or ()),
        logprobs=logprobs,
        structure=structure_of(asked),
        truncate=bool(asked.truncate),
    )


def _outside(name: str, value: int, words: str) -> HttpError:
    return HttpError(400, f"{name} is {value:,}; {words} was expected", param=name)


class _Text:
    """See `answer.Format`."""

    def __init__(self, asked: CompletionRequest, state: Served, each: int) -> None:
        self.each, self._wants, self._usage = each, asked.logprobs is not None, asked.usage
        self._words = Vocabulary(state.tokenizer)
        self._offsets: dict[int, Offsets] = {}
        self._echo, self._stops = bool(asked.echo), asked.stops
        self._tokenizer = state.tokenizer
        self._same: dict[str, Any] = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": asked.model,
        }

    def whole(self, replies: Sequence[Reply], usage: Usage) -> Completion:
        choices = [self._whole(i, it) for i, it in enumerate(replies)]
        return Completion(**self._same, choices=choices, usage=usage)

    def _whole(self, index: int, reply: Reply) -> Choice:
        if not self._echo:
            return self._choice(index, reply.text, reply.tokens, REASONS[reply.finished])
        prompt = reply.prompt or [Token(one) for one in reply.prompt_ids if one >= 0]
        said = [token.id for token in reply.tokens]
        before = self._text([token.id for token in prompt])
        after = self._text([*(token.id for token in prompt), *said])[len(before) :]
        for stop in self._stops:
            after = after.partition(stop)[0]
        # With its end, as vLLM's: lm-evaluation-harness counts on a token after the prompt.
        tokens = [*prompt, *reply.tokens, *([] if reply.end is None else [reply.end])]
        return self._choice(index, before + after, tokens, REASONS[reply.finished])

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def opening(self) -> list[BaseModel]:
        return []

    def piece(self, index: int, piece: Piece) -> Completion:
        return self._chunk([self._choice(index, piece.text, piece.tokens, None)])

    def last(self, index: int, reply: Reply) -> Completion:
        return self._chunk([self._choice(index, "", (), REASONS[reply.finished])])

    def usage(self, usage: Usage) -> Completion:
        return Completion(**self._same, choices=[], usage=usage)

    def _chunk(self, choices: list[Choice]) -> Completion:
        none: dict[str, Any] = {"usage": None} if self._usage else {}
        return Completion(**self._same, **none, choices=choices)

    def _choice(self, index: int, text: str, tokens: Sequence[Token], reason: Any) -> Choice:
        told = self._logprobs(index, tokens) if self._wants and tokens else None
        return Choice(index=index, text=text, logprobs=told, finish_reason=reason)

    def _logprobs(self, index: int, tokens: Sequence[Token]) -> Logprobs:
        words, offsets = self._words, self._offsets.setdefault(index, Offsets(not self._echo))
        return Logprobs(
            tokens=[words.text(token.id) for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[self._top(token) for token in tokens],
            text_offset=[offsets.next(words.data(token.id)) for token in tokens],
        )

    def _top(self, token: Token) -> dict[str, float] | None:
        if token.logprob is None:
            return None
        words = self._words
        best = {words.text(other): value for other, value in reversed(token.alternatives)}
        return best | {words.text(token.id): token.logprob}
