"""A real server in a thread, over the adapters of `tests.serve.world`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from peftlab.serve import Engine, Library, Limits
from peftlab.serve.http import Settings, create_app
from peftlab.serve.http.run import listening, server
from tests.serve import world


@dataclass(frozen=True)
class Server:
    """Where it is, and its engine."""

    url: str
    engine: Engine

    @property
    def requests(self) -> tuple[int, int]:
        """How many run and how many wait."""
        stats = self.engine.stats()
        return stats.running, stats.waiting

    def openai(self, key: str = "unused") -> openai.OpenAI:
        """The official client; what fails fails at once."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30)

    def connect(self) -> socket.socket:
        """A connection to send bytes of any kind by."""
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=20)

    def http(self, key: str | None = None) -> httpx.Client:
        """A plain client."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


def counts(usage: Any) -> tuple[int, int, int]:
    """A usage but for what was known already, which hangs on who has asked before."""
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


@contextmanager
def held(engine: Engine) -> Iterator[Callable[[int], None]]:
    """Let the engine's steps wait; what is given lets so many of them pass. At the end all pass."""
    passes, feed = threading.Semaphore(0), engine._slots.feed
    over = threading.Event()

    def wait(*given: Any) -> Any:
        while not over.is_set() and not passes.acquire(timeout=0.01):
            pass
        return feed(*given)

    engine._slots.feed = wait  # type: ignore[method-assign]
    try:
        yield lambda count: [passes.release() for _ in range(count)] and None
    finally:
        over.set()
        engine._slots.feed = feed  # type: ignore[method-assign]


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.005)


@contextmanager
def serving(
    library: Library | None = None,
    settings: Settings | None = None,
    send_buffer: int | None = None,
    **limits: int,
) -> Iterator[Server]:
    """Serve for a while; small batches, so that requests meet in them.

    Args:
        send_buffer: bytes that the system keeps for a client that does not read.
    """
    library = library or world.library()
    sizes = {"slots": 6, "capacity": world.CAPACITY, "prefill_tokens": 16, **limits}
    engine = Engine(library.model, library, Limits(**sizes))
    settings = settings or Settings()
    ready = threading.Event()
    running = server(create_app(engine, settings), ready.set, "critical")
    bound = listening("127.0.0.1", 0, settings.stuck_seconds)
    if send_buffer is not None:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    thread.start()
    try:
        assert ready.wait(30)
        yield Server(url, engine)
    finally:
        running.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
