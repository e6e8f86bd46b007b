"""A real server in a thread, over the adapters of `tests.serve.world`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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

    def openai(self, key: str = "unused") -> openai.OpenAI:
        """The official client; what fails fails at once."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30)

    def http(self, key: str | None = None) -> httpx.Client:
        """A plain client."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


@contextmanager
def serving(
    library: Library | None = None, settings: Settings | None = None, **limits: int
) -> Iterator[Server]:
    """Serve for a while; small batches, so that requests meet in them."""
    library = library or world.library()
    sizes = {"slots": 6, "capacity": world.CAPACITY, "prefill_tokens": 16, **limits}
    engine = Engine(library.model, library, Limits(**sizes))
    settings = settings or Settings()
    ready = threading.Event()
    running = server(create_app(engine, settings), ready.set, "critical")
    bound = listening("127.0.0.1", 0, settings.stuck_seconds)
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
