"""`/metrics` says what has happened."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from peftlab.serve.http import Settings
from tests.serve.http.server import Server, held, serving, until
from tests.serve.http.test_limits import ASKED
from tests.serve.world import NAMES


def read(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with server.http() as http:
        response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(server: Server, name: str, **labels: str) -> float:
    return read(server)[f"peftlab_{name}", frozenset(labels.items())]


def test_the_numbers_are_those_of_the_replies() -> None:
    with serving(slots=3) as server, server.openai() as client:
        used = []
        for name, n in (("a9", 2), ("a4", 1), ("a9", 1)):
            asked: Any = ASKED | {"model": name, "n": n}
            usage = client.completions.create(**asked).usage
            assert usage is not None
            used.append(usage)
        list(client.completions.create(**ASKED, stream=True))
        made = used[0].completion_tokens + 2 * used[2].completion_tokens
        assert value(server, "adapter_tokens_total", adapter="a9") == made
        prompts = 4 * used[2].prompt_tokens
        assert value(server, "adapter_prompt_tokens_total", adapter="a9") == prompts
        for name in ("first_token_seconds", "reply_seconds", "waiting_seconds", "token_seconds"):
            assert value(server, f"{name}_count", adapter="a9") == 4
        first = value(server, "first_token_seconds_sum", adapter="a9")
        assert 0 < first <= value(server, "reply_seconds_sum", adapter="a9")
        ends = sum(
            count
            for (name, labels), count in read(server).items()
            if name == "peftlab_requests_total" and ("adapter", "a9") in labels
        )
        assert ends == 4
        stats = server.engine.stats()
        assert value(server, "tokens_total") == stats.tokens
        assert value(server, "steps_total") == stats.steps > 0
        assert value(server, "cache_bytes") == stats.cache_bytes
        assert value(server, "batch_slots") == 3
        assert value(server, "adapters_known") == len(NAMES) + 1
        answers = {"path": "/v1/completions", "method": "POST", "status": "200"}
        assert value(server, "http_requests_total", **answers) == 4
        assert read(server)["process_resident_memory_bytes", frozenset()] > 1e7


def test_the_queue_and_the_batch_are_seen() -> None:
    with serving(slots=1) as server, ThreadPoolExecutor() as pool, server.http() as http:
        with held(server.engine):
            asked = [pool.submit(http.post, "/v1/completions", json=ASKED) for _ in range(3)]
            until(lambda: server.requests == (1, 2))
            assert value(server, "queue") == 2 and value(server, "batch_rows") == 1
        assert [it.result(20).status_code for it in asked] == [200] * 3
        assert value(server, "queue") == value(server, "batch_rows") == 0


def test_series_are_bounded_however_many_adapters_there_are() -> None:
    with serving(settings=Settings(labels=2)) as server, server.openai() as client:
        for name in ("a1", "a2", "a4", "a5"):
            client.completions.create(model=name, prompt="cat", max_tokens=1)
        assert value(server, "adapter_tokens_total", adapter="_others") > 0
        with pytest.raises(KeyError):
            value(server, "adapter_tokens_total", adapter="a4")
        with server.http() as http:
            for i in range(5):
                http.get(f"/nowhere/{i}")
        other = {"path": "_other", "method": "_other", "status": "404"}
        assert value(server, "http_requests_total", **other) == 5
