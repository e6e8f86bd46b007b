"""Between the engine's thread and the server's loop: the replies to one HTTP request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from peftlab.serve import prompt
from peftlab.serve.http.errors import HttpError
from peftlab.serve.request import Event, Piece, Reply, ServeRequest, Ticket

if TYPE_CHECKING:
    from peftlab.serve.http.served import Served

_LONG = 1 << 15  # characters, or tokens, of all prompts of a request
T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Gone(Exception):
    """The client has left, so nobody hears the answer."""


class Exchange:
    """The replies to one HTTP request, whose events wait in a bounded buffer.

    Whoever makes one closes it, so that nothing runs on for a client that has left.
    """

    def __init__(self, served: Served, requests: Sequence[ServeRequest]) -> None:
        self.served, self.requests = served, requests
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + served.settings.seconds
        self._tickets: list[Ticket] = []
        self._events: deque[tuple[int, Event]] = deque()
        self._fresh = asyncio.Event()
        self._woken = self._closed = self._full = False

    def left(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - self._loop.time()

    def close(self) -> None:
        """Call off what is still running."""
        self._closed = True
        for ticket in self._tickets:
            ticket.cancel()

    async def submit(self, *, stream: bool) -> None:
        """Hand all requests to the engine, or none.

        Encoding a long prompt takes seconds, and memory of hundreds of times its length, so those
        stand in a line of their own.

        Raises:
            PeftlabError: what the engine refuses. HttpError: its turn did not come in time.
        """
        long = sum(prompt.size(one.source) for one in self.requests) > _LONG
        line = self.served.long_prompts if long else None  # else the loop's own threads
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._loop.run_in_executor(line, self._submit, stream)
        except TimeoutError:
            raise _late(self.served.settings.seconds) from None

    def _submit(self, stream: bool) -> None:
        for index, request in enumerate(self.requests):
            if self._closed:
                return
            listener = self._listener(index)
            try:
                ticket = self.served.engine.submit(request, listener, stream=stream)
            except Exception:
                self.close()
                raise
            self._tickets.append(ticket)
        if self._closed:
            self.close()  # it was closed meanwhile

    def _listener(self, index: int) -> Callable[[Event], None]:
        def hear(event: Event) -> None:  # in the engine's thread
            if self._closed:
                return
            if isinstance(event, Piece) and len(self._events) >= self._most:
                self._full = True
                self.close()
            self._events.append((index, event))
            if not self._woken:
                self._woken = True
                self._loop.call_soon_threadsafe(self._wake)

        return hear

    @property
    def _most(self) -> int:
        return self.served.settings.unread_pieces

    def _wake(self) -> None:
        self._woken = False
        self._fresh.set()

    async def _next(self) -> tuple[int, Event]:
        while not self._events:
            self._fresh.clear()
            async with asyncio.timeout_at(self._deadline):
                await self._fresh.wait()
        return self._events.popleft()

    async def events(self) -> AsyncIterator[tuple[int, Piece | Reply]]:
        """The pieces and replies of all requests, by their index, until all have ended.

        Raises:
            HttpError: no time is left, the client did not read, or the server is stopping.
            PeftlabError: what the engine raises for any of them.
        """
        missing = len(self.requests)
        while missing:
            try:
                index, event = await self._next()
            except TimeoutError:
                raise _late(self.served.settings.seconds) from None
            if self._full:
                raise HttpError(400, "the client does not read what it asked for", code="stuck")
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Reply):
                missing -= 1
                if event.finished == "cancelled":
                    raise HttpError(
                        503, "the server is stopping", kind="server_error", code="closing"
                    )
                self.served.metrics.finished(self.requests[index].adapter, event)
            yield index, event

    async def replies(self) -> list[Reply]:
        """All replies, in the order of the requests. Raises what `events` does."""
        replies = {i: event async for i, event in self.events() if isinstance(event, Reply)}
        return [replies[index] for index in range(len(self.requests))]


def _late(seconds: float) -> HttpError:
    return HttpError(
        504, f"there was no whole reply within {seconds:g} s", kind="server_error", code="timeout"
    )


async def unless_gone(receive: Receive, work: Awaitable[T], seconds: float | None = None) -> T:
    """Do the work unless the client leaves.

    Raises:
        Gone: it left. TimeoutError: the work took longer than that.
    """
    doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({doing, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise Gone if gone.done() else TimeoutError
    finally:
        for task in (doing, gone):
            task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
