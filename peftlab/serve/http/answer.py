"""Answering: one JSON object, or a stream of server-sent events."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from fastapi import Request as Http
from fastapi import Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from peftlab.errors import PeftlabError
from peftlab.serve.http.errors import HttpError, from_engine
from peftlab.serve.http.exchange import Exchange, Gone, unless_gone
from peftlab.serve.http.served import TENANT, Served
from peftlab.serve.http.wire import PromptDetails, Usage
from peftlab.serve.request import Piece, Reply, ServeRequest

_log = logging.getLogger(__name__)
_LAST_WORDS = 5.0  # seconds to tell a client that its time is over
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
REASONS: dict[str, Literal["stop", "length"]] = {
    "end": "stop", "stop": "stop", "length": "length",
}  # fmt: skip


class Format(Protocol):
    """How one endpoint writes what has come.

    Attributes:
        each: replies to each prompt, `n`.
    """

    each: int

    def whole(self, replies: Sequence[Reply], usage: Usage) -> BaseModel:
        """All replies in one object."""
        ...

    def opening(self) -> list[BaseModel]:
        """Chunks before the first piece."""
        ...

    def piece(self, index: int, piece: Piece) -> BaseModel:
        """A chunk with more of a reply."""
        ...

    def last(self, index: int, reply: Reply) -> BaseModel:
        """The chunk that says how a reply has ended."""
        ...

    def usage(self, usage: Usage) -> BaseModel:
        """The chunk after all others."""
        ...


async def answer(
    served: Served, http: Http, requests: Sequence[ServeRequest], form: Format, *, stream: bool,
    usage: bool,
) -> Response:  # fmt: skip
    """Put the requests to the engine and answer.

    An error that comes before the first piece has a status of its own even in a stream.

    Raises:
        HttpError, PeftlabError: why there is no answer.
    """
    tenant = http.scope[TENANT]
    exchange = Exchange(served, [replace(one, tenant=tenant) for one in requests])
    try:
        await unless_gone(http.receive, exchange.submit(stream=stream))
        if not stream:
            replies = await unless_gone(http.receive, exchange.replies())
            return _json(form.whole(replies, _usage(replies, form.each)))
        events = exchange.events()
        first = await unless_gone(http.receive, anext(events))
        return EventStream(exchange, _chunks(first, events, form, usage))
    except Gone:
        exchange.close()
        return Response(status_code=499)  # nobody reads it
    except BaseException:
        exchange.close()
        raise


def _json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(exclude_unset=True), media_type="application/json")


async def _chunks(
    first: tuple[int, Piece | Reply],
    events: AsyncIterator[tuple[int, Piece | Reply]],
    form: Format,
    usage: bool,
) -> AsyncIterator[BaseModel]:
    replies: dict[int, Reply] = {}
    for chunk in form.opening():
        yield chunk
    async for index, event in _with(first, events):
        if isinstance(event, Reply):
            replies[index] = event
            yield form.last(index, event)
        else:
            yield form.piece(index, event)
    if usage:
        yield form.usage(_usage([replies[i] for i in sorted(replies)], form.each))


async def _with(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for one in rest:
        yield one


def _usage(replies: Sequence[Reply], each: int) -> Usage:
    prompts = sum(reply.prompt_tokens for reply in replies[::each])
    known = sum(reply.cached_tokens for reply in replies[::each])
    made = sum(len(reply.tokens) for reply in replies)
    return Usage(
        prompt_tokens=prompts,
        completion_tokens=made,
        total_tokens=prompts + made,
        prompt_tokens_details=PromptDetails(cached_tokens=known),
    )


class EventStream(Response):
    """Chunks as server-sent events, as OpenAI writes them; ends when the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, exchange: Exchange, chunks: AsyncIterator[BaseModel]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._exchange, self._chunks = exchange, chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        left = self._exchange.left() + _LAST_WORDS
        try:
            await unless_gone(receive, self._send(send), left)
        except Gone:
            return
        except TimeoutError:
            _log.warning("a client did not read its stream; it is cut off")
        finally:
            self._exchange.close()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            async for chunk in self._chunks:
                await _event(send, chunk.model_dump_json(exclude_unset=True))
        except Exception as error:  # the status is out, so the stream itself tells
            if not isinstance(error, HttpError | PeftlabError):
                _log.exception("a stream failed")
            told = from_engine(error, self._exchange.served.retry_after())
            await _event(send, told.body().decode())
        else:
            await _event(send, "[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _event(send: Send, data: str) -> None:
    body = f"data: {data}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})
