"""A server under everything at once for a long time: does it answer, rightly, and stay small?

    python -m bench.soak --requests 100000 --json

Clients on this machine send requests with known replies, whole and streamed; fuzzed ones, some with
prompts of 600 KB; others leave before their answer is whole; and adapters are replaced all the
while by another version and back. It ends after so many requests or so many seconds. Counted are
answers of 500 and above, requests that hang, that are lost, and replies of somebody else. Memory is
the server's resident set before, after, and a minute later.

Ends with status 1 where any of these is not 0, or where the memory a minute later is over 1.3 times
that of before.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.pairing import device_name
from bench.serve import adaptations
from bench.serve_sides import Asked, Server, request, serving
from bench.soak_requests import Sent, fuzzed
from bench.workloads import DEMO, spec

_KINDS = ("lora", "prefix", "prompt", "bottleneck", "last-1")
_SHARES = {"known": 0.6, "fuzzed": 0.3, "leaving": 0.09, "replacing": 0.01}
_LONG_SHARE = 1 / 60  # of the fuzzed ones: a prompt of 600 KB
_TEXTS, _TOKENS = 6, 8
_HANGS = 120.0  # seconds without an answer
_MOST_GROWTH = 1.3
# A connection that the server is just closing is not taken again (it keeps them for 5 s).
_PROMPT_CACHE = 32 << 20  # bytes: full soon, so that it evicts all the time and does not grow
_CONNECTIONS = httpx.Limits(max_connections=None, keepalive_expiry=1)


def main() -> None:
    """Soak and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=3600, help="it ends then in any case")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rest", type=float, default=60, help="seconds until the last look")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(arguments, Path(folder))
    for name, value in result.items():
        print(f"{name}: {value}", flush=True)
    if arguments.json:
        print(json.dumps(result))
    if wrong := problems(result):
        raise SystemExit(wrong)


@dataclass
class Soak:
    """A soak under way.

    known: what is asked, and the replies that either version of its adapter gives to it.
    """

    http: httpx.AsyncClient
    known: list[tuple[Asked, tuple[str, str]]]
    until: float
    left: int
    replies: set[str] = field(init=False)
    counts: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replies = {text for _, both in self.known for text in both}

    async def client(self, rng: random.Random) -> None:
        """Send one request after another."""
        does = {
            "known": self.ask, "fuzzed": self.fuzz, "leaving": self.leave,
            "replacing": self.replace,
        }  # fmt: skip
        while self.left > 0 and time.monotonic() < self.until:
            self.left -= 1
            kind = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
            self.counts["requests"] += 1
            self.counts[kind] += 1
            try:
                async with asyncio.timeout(_HANGS):
                    await does[kind](rng)
            except TimeoutError:
                self.note("hung", kind)
            except (httpx.HTTPError, json.JSONDecodeError, KeyError) as error:
                self.note("lost", f"{kind}: {error!r}")

    def note(self, what: str, detail: str) -> None:
        """Count what must not be."""
        self.counts[what] += 1
        if len(self.details) < 10:
            self.details.append(f"{what}: {detail[:300]}")

    def seen(self, answer: httpx.Response, kind: str) -> None:
        """Count a status."""
        self.counts[f"status {answer.status_code}"] += 1
        if answer.status_code >= 500:
            self.note("failed", f"{kind}: {answer.status_code} {answer.text}")

    async def ask(self, rng: random.Random) -> None:
        """A request whose reply is known."""
        asked, right = rng.choice(self.known)
        stream = rng.random() < 0.5
        async with self.http.stream(
            "POST", "/v1/completions", json=_body(asked, stream=stream)
        ) as answer:
            data = (await answer.aread()).decode()
        self.seen(answer, "known")
        if answer.status_code == 429:
            return
        text = _streamed(data) if stream else json.loads(data)["choices"][0]["text"]
        if text in right:
            self.counts["right"] += 1
        elif text in self.replies:
            self.note("mixed", f"{asked} got {text!r}")
        else:
            self.note("differing", f"{asked} got {text!r}")

    async def fuzz(self, rng: random.Random) -> None:
        """Anything."""
        models = sorted({one.adapter for one, _ in self.known})
        await self.send(fuzzed(rng, models, _LONG_SHARE))

    async def send(self, sent: Sent) -> None:
        """A request whose answer is of no interest, as long as there is one."""
        headers = {"Content-Type": "application/json"}
        answer = await self.http.request(
            sent.method, sent.path, content=sent.content, headers=headers
        )
        self.seen(answer, f"{sent.method} {sent.path} {sent.content[:150]!r}")

    async def leave(self, rng: random.Random) -> None:
        """A client that goes away at any moment, or after the first piece."""
        asked, _ = rng.choice(self.known)
        body = _body(asked, stream=True) | {"max_tokens": 64, "min_tokens": 64}
        try:
            async with asyncio.timeout(rng.choice((0.001, 0.01, 0.05, 0.3, 2))):
                async with self.http.stream("POST", "/v1/completions", json=body) as answer:
                    await anext(answer.aiter_lines(), None)
        except TimeoutError:
            pass

    async def replace(self, rng: random.Random) -> None:
        """Put the other version of an adapter into its place, or the first one again."""
        name = rng.choice(sorted({one.adapter for one, _ in self.known}))
        folder = rng.choice((name, f"{name}-other"))
        answer = await self.http.put(f"/v1/adapters/{name}", json={"folder": folder})
        self.seen(answer, "replacing")
        if answer.status_code not in (200, 429):
            self.note("lost", f"{name} was not replaced: {answer.text}")


def soak(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make adapters, serve them in a process of their own, and soak it; see the module."""
    known = _known(folder)
    options = {"slots": 16, "capacity": 256, "prompt-cache": _PROMPT_CACHE}
    with serving(DEMO, folder, options, settings.threads) as server:
        return asyncio.run(_soaked(settings, known, server))


async def _soaked(
    settings: argparse.Namespace, known: list[tuple[Asked, tuple[str, str]]], server: Server
) -> dict[str, Any]:
    async with httpx.AsyncClient(
        base_url=server.address, limits=_CONNECTIONS, timeout=_HANGS
    ) as http:
        for one, _ in known:  # adapters come into memory, allocators fill
            (await http.post("/v1/completions", json=_body(one, stream=False))).raise_for_status()
        memory, begun = {"before": server.memory}, time.monotonic()
        under_way = Soak(http, known, begun + settings.seconds, settings.requests)
        await asyncio.gather(
            *(
                under_way.client(random.Random(f"{settings.seed} {i}"))
                for i in range(settings.clients)
            )
        )
        took, memory["after"] = time.monotonic() - begun, server.memory
        await asyncio.sleep(settings.rest)
        memory["later"] = server.memory
        health = await http.get("/health")
    return {
        **dict(sorted(under_way.counts.items())), "seconds": round(took), "memory": memory,
        "references": len(known), "references_distinct": len(under_way.replies),
        "growth": round(memory["later"] / memory["before"], 3), "health": health.status_code,
        "details": under_way.details, "device": device_name(),
    }  # fmt: skip


def _known(folder: Path) -> list[tuple[Asked, tuple[str, str]]]:
    """Save two versions of each adapter, and ask each alone what it replies."""
    from peftlab.frozen.model import FrozenLM
    from peftlab.serve import Engine, Library, Limits
    from peftlab.tasks import Task

    model, task = FrozenLM.load(DEMO), Task.load("demo", limit=32)
    made = adaptations(model, task, [spec(kind, DEMO) for kind in _KINDS for _ in "ab"])
    names = [f"{kind}{version}" for kind in _KINDS for version in ("", "-other")]
    for name, adaptation in zip(names, made, strict=True):
        adaptation.save(folder / name)
    limits = Limits(slots=1, capacity=256, prompt_cache_bytes=0)
    engine = Engine(model, Library(model, folder), limits)
    sources = [example.source for example in task.test[:_TEXTS]]
    known, number = [], itertools.count()
    for kind, source, seed in itertools.product(_KINDS, sources, (None, 7)):
        both = [
            Asked(next(number), name, source, _TOKENS, seed) for name in (kind, f"{kind}-other")
        ]
        known.append((both[0], (_alone(engine, both[0]), _alone(engine, both[1]))))
    return known


def _alone(engine: Any, one: Asked) -> str:
    ticket = engine.submit(request(one), stream=False)
    while engine.step():
        pass
    return str(ticket.result(0).text)


def _body(one: Asked, *, stream: bool) -> dict[str, Any]:
    sampled = {} if one.seed is None else {"seed": one.seed}
    return {
        "model": one.adapter, "prompt": one.source, "max_tokens": one.tokens,
        "temperature": 0 if one.seed is None else 1, "stream": stream, **sampled,
    }  # fmt: skip


def _streamed(data: str) -> str:
    return "".join(
        choice["text"] for piece in _pieces(data) for choice in json.loads(piece)["choices"]
    )


def _pieces(data: str) -> Iterator[str]:
    lines = [line.removeprefix("data: ") for line in data.splitlines() if line]
    if not lines or lines[-1] != "[DONE]":
        raise KeyError(f"the stream ended before the reply: {data[-200:]}")
    return iter(lines[:-1])


def problems(result: dict[str, Any]) -> str:
    """What must not be, in words; empty where there is nothing of it."""
    faults = [
        f"{result[what]} {what}" for what in ("failed", "hung", "lost", "mixed") if result.get(what)
    ]
    if result["growth"] > _MOST_GROWTH:
        faults.append(f"memory is {result['growth']} times that of before")
    if result["health"] != 200:
        faults.append(f"/health is {result['health']}")
    return "; ".join(faults)


if __name__ == "__main__":
    main()
