"""The two sides of `bench.serve_http`: the engine asked in this process, a server over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil

from bench.open_loop import Outcome
from peftlab.serve import Engine, Piece, QueueFull, Reply, ServeRequest
from peftlab.tasks import Decoding

_START_SECONDS = 600.0
_NO_LIMIT = httpx.Limits(max_connections=None, max_keepalive_connections=None)


@dataclass(frozen=True)
class Asked:
    """A text for an adapter; greedy where there is no seed. number: its reference's place."""

    number: int
    adapter: str
    source: str
    tokens: int
    seed: int | None


class Side(Protocol):
    """Whoever answers."""

    async def ask(self, one: Asked, due: float) -> Outcome:
        """The outcome of a request that was due at that moment of `time.perf_counter`."""


class InProcess:
    """The engine's own interface, from an event loop as the server has one."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def ask(self, one: Asked, due: float) -> Outcome:
        """See `Side`."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[Reply | Exception] = loop.create_future()
        first: list[float] = []

        def listen(event: Piece | Reply | Exception) -> None:
            if not isinstance(event, Piece):
                loop.call_soon_threadsafe(over.set_result, event)
            elif not first:
                loop.call_soon_threadsafe(lambda: first.append(time.perf_counter() - due))

        try:
            self.engine.submit(request(one), listen)
        except QueueFull:
            return Outcome(one.number, 429)
        reply = await over
        total = time.perf_counter() - due
        if isinstance(reply, Exception):
            return Outcome(one.number, 0, total=total, detail=str(reply))
        return Outcome(
            one.number, 200, reply.text, first[0] if first else None, total, len(reply.tokens)
        )


def request(one: Asked) -> ServeRequest:
    """As the engine takes it."""
    decoding = Decoding() if one.seed is None else Decoding(sample=True)
    return ServeRequest(one.adapter, one.source, one.tokens, decoding=decoding, seed=one.seed)


class OverHttp:
    """Streamed completions of a server."""

    def __init__(self, address: str) -> None:
        self.client = httpx.AsyncClient(base_url=address, limits=_NO_LIMIT, timeout=600)

    async def ask(self, one: Asked, due: float) -> Outcome:
        """See `Side`."""
        body: dict[str, Any] = {
            "model": one.adapter, "prompt": one.source, "max_tokens": one.tokens,
            "temperature": 0 if one.seed is None else 1, "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        if one.seed is not None:
            body["seed"] = one.seed
        try:
            async with self.client.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    said = (await answer.aread()).decode()
                    wait = answer.headers.get("Retry-After")
                    return Outcome(
                        one.number, answer.status_code, retry_after=wait, detail=said[:300]
                    )
                return await _stream(one, answer, due)
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            return Outcome(one.number, 0, detail=repr(error))


async def _stream(one: Asked, answer: httpx.Response, due: float) -> Outcome:
    texts: list[str] = []
    first, tokens = None, 0
    async for line in answer.aiter_lines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            total = time.perf_counter() - due
            return Outcome(one.number, 200, "".join(texts), first, total, tokens)
        piece: Mapping[str, Any] = json.loads(line.removeprefix("data: "))
        if "error" in piece:
            return Outcome(one.number, 0, detail=str(piece["error"]))
        for choice in piece["choices"]:
            texts.append(choice["text"])
            first = first or (time.perf_counter() - due if choice["text"] else None)
        tokens = (piece.get("usage") or {}).get("completion_tokens", tokens)
    return Outcome(one.number, 0, detail="the stream ended before the reply")


class Server:
    """`peftlab serve` in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.process, self.address = process, address

    @property
    def memory(self) -> int:
        """Bytes that it holds now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def serving(
    model: Path, adapters: Path, options: Mapping[str, int], threads: int
) -> Iterator[Server]:
    """Start the server, wait until it serves, and end it as a terminal or a supervisor would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [
        sys.executable, "-m", "peftlab", "serve", "--model", str(model),
        "--adapters", str(adapters), "--port", str(port), *words,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        server = Server(process, f"http://127.0.0.1:{port}")
        _await(server)
        yield server
    finally:
        process.terminate()
        process.wait()


def _await(server: Server) -> None:
    given_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < given_up:
        if server.process.poll() is not None:
            raise SystemExit(f"the server ended with {server.process.returncode} as it started")
        try:
            if httpx.get(f"{server.address}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit(f"the server did not start within {_START_SECONDS:.0f} s")
