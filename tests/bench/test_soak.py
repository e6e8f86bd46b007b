"""What `bench.soak` counts, on a server that answers as it is told."""

from __future__ import annotations

import asyncio
import json
import random
import time

import httpx

from bench.serve_sides import Asked
from bench.soak import Soak, problems
from bench.soak_requests import fuzzed

KNOWN = [
    (Asked(0, "a", "one", 8, None), ("red", "blue")),
    (Asked(1, "b", "two", 8, 7), ("green", "grey")),
]
GOOD = {"growth": 1.2, "health": 200}


def soaked(answer: httpx.Response, known: int = 0) -> Soak:
    """One known request that is answered so."""

    async def ask() -> Soak:
        transport = httpx.MockTransport(lambda _: answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            soak = Soak(http, KNOWN, time.monotonic() + 60, 1)
            soak.known = KNOWN[known : known + 1]
            await soak.client(Known())
            return soak

    return asyncio.run(ask())


class Known(random.Random):
    """Sends nothing but known requests that are not streamed."""

    def choices(self, population, *_, **__):  # type: ignore[no-untyped-def]
        return [population[0]]

    def random(self) -> float:
        return 0.9


def replied(text: str) -> httpx.Response:
    return httpx.Response(200, json={"choices": [{"text": text}]})


def test_each_way_to_go_wrong_is_counted() -> None:
    for text, what in (("red", "right"), ("blue", "right"), ("green", "mixed"), ("x", "differing")):
        counts = soaked(replied(text)).counts
        assert counts[what] == 1 and counts["requests"] == counts["known"] == 1
        assert sum(counts[it] for it in ("right", "mixed", "differing", "lost", "hung")) == 1
    assert soaked(replied("grey"), known=1).counts["right"] == 1
    assert soaked(httpx.Response(503, text="closing")).counts["failed"] == 1
    assert soaked(httpx.Response(200, text="{")).counts["lost"] == 1
    assert not problems({**GOOD, "right": 3, "differing": 1})
    for what in ("failed", "hung", "lost", "mixed"):
        assert problems({**GOOD, what: 2}) == f"2 {what}"
    assert "1.31 times" in problems({**GOOD, "growth": 1.31})
    assert "/health is 503" in problems({**GOOD, "health": 503})


def test_a_soak_can_be_made_again_and_holds_every_kind() -> None:
    def sent(seed: int) -> list[object]:
        rng = random.Random(seed)
        return [fuzzed(rng, ["a", "b"], 1 / 60) for _ in range(300)]

    once = sent(1)
    assert once == sent(1) != sent(2)
    bodies = [it.content for it in once]  # type: ignore[attr-defined]
    assert 1 <= sum(len(body) > 500_000 for body in bodies) <= 15
    assert max(map(len, bodies)) < 1 << 20, "the server's own limit would refuse it"
    assert any(b'"messages"' in body for body in bodies)
    assert any(not _is_json(body) for body in bodies)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
