"""What is known is told in the usage and in the metrics, and kept apart by API key."""

from __future__ import annotations

from typing import Any

import pytest

from peftlab.serve.http import Settings
from tests.serve.http.server import serving
from tests.serve.http.test_metrics import value
from tests.serve.world import sources

ASKED: dict[str, Any] = {"model": "a9", "prompt": " ".join(sources()[:4]), "max_tokens": 4}


def cached(client: Any, **more: Any) -> int:
    usage = client.completions.create(**ASKED | more).usage
    details = usage.prompt_tokens_details
    assert 0 <= details.cached_tokens < usage.prompt_tokens
    return int(details.cached_tokens)


def test_usage_and_metrics_tell_what_was_known() -> None:
    with serving() as server, server.openai() as client:
        assert cached(client) == 0
        known = cached(client)
        assert known > 20 and cached(client, n=2) == known
        options: Any = {"include_usage": True}
        *_, last = client.completions.create(**ASKED, stream=True, stream_options=options)
        assert last.usage is not None and last.usage.prompt_tokens_details is not None
        assert last.usage.prompt_tokens_details.cached_tokens == known
        assert value(server, "prompt_cache_queries_total") == 5
        assert value(server, "prompt_cache_hits_total") == 4
        assert value(server, "prompt_cache_tokens_total") == 4 * known
        assert value(server, "prompt_cache_bytes") == server.engine.stats().reused.bytes > 0


@pytest.mark.parametrize(
    ("settings", "apart"),
    [
        (Settings(api_keys=("one", "two")), True),
        (Settings(api_keys=("one",), admin_keys=("two",)), True),
        (Settings(api_keys=("one", "two"), share_prompt_cache=True), False),
        (Settings(), False),
    ],
)
def test_of_several_keys_each_has_its_own(settings: Settings, apart: bool) -> None:
    with serving(settings=settings) as server:
        with server.openai("one") as one, server.openai("two") as two:
            assert cached(one) == 0 < cached(one)
            assert (cached(two) == 0) == apart
            assert cached(two) > 0
        tenants = {holder.tenant for holder in server.engine._reuse._cache._roots}
        assert len(tenants) == 1 + apart and not tenants & {"one", "two"}
