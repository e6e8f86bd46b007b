"""What the soak sends beside requests with known replies: anything, most of it bad.

Everything comes from a seeded generator, so that a soak can be made again.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

_FIELDS = (
    "model", "prompt", "messages", "max_tokens", "min_tokens", "n", "seed", "stop", "stream",
    "stream_options", "temperature", "top_p", "top_k", "no_repeat_ngram", "truncate", "logprobs",
    "top_logprobs", "fields", "echo", "suffix", "logit_bias", "tools", "unheard_of",
)  # fmt: skip
_ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, -0.0, 0.009, 0.5, 1e308, "", " ", "0", "a",
    "\x00", "\x1b[31m", "\ud800", "é中🙂\u202e", "x" * 3000, [], [""], [0], [-1], [10**9], [[]],
    [[1, 2], [3]], ["a", 1], [True], {}, {"a": {}}, {"include_usage": True}, [{"role": "user"}],
    [{"role": "user", "content": "cat"}], [{"role": "system", "content": "\ud800"}],
)  # fmt: skip
_RAW = (
    b"", b"{", b"null", b"[]", b'"x"', b"{}", b"\xff\xfe", b'{"model": NaN}', b"[" * 20_000,
    b'{"a":' * 5_000, b'{"prompt": "\\ud800"}', b"9" * 6_000, b'{"model": "a", "model": "b"}',
)  # fmt: skip
_PATHS = (
    ("GET", "/v1/models"), ("GET", "/v1/models/nobody"), ("GET", "/v1/adapters"),
    ("GET", "/v1/adapters/%00"), ("GET", "/health"), ("GET", "/metrics"), ("GET", "/openapi.json"),
    ("GET", "/v1/adapters/..%2f..%2fetc"), ("PUT", "/v1/adapters/nobody"), ("GET", "/nowhere"),
    ("DELETE", "/v1/adapters/nobody"), ("POST", "/v1/adapters/rescan"), ("PATCH", "/v1/models"),
    ("PUT", "/v1/adapters/" + "x" * 500), ("OPTIONS", "/v1/completions"), ("GET", "/"),
)  # fmt: skip
_LONG = 600_000  # characters


@dataclass(frozen=True)
class Sent:
    """One request as it goes out."""

    method: str
    path: str
    content: bytes = b""


def fuzzed(rng: random.Random, models: list[str], long_share: float) -> Sent:
    """A request of any kind; `long_share` of them have a prompt of 600 KB."""
    if rng.random() < long_share:
        return _completion(_long(rng, rng.choice(models)))
    kind = rng.random()
    if kind < 0.2:
        method, path = rng.choice(_PATHS)
        return Sent(method, path, rng.choice(_RAW) if method in ("PUT", "POST") else b"")
    if kind < 0.35:
        return Sent("POST", _endpoint(rng), rng.choice(_RAW))
    body: dict[str, Any] = {"model": rng.choice(models), "prompt": "A cat sat.", "max_tokens": 4}
    for _ in range(rng.randint(1, 4)):
        body[rng.choice(_FIELDS)] = rng.choice(_ODD)
    return Sent("POST", _endpoint(rng), json.dumps(body).encode())


def _endpoint(rng: random.Random) -> str:
    return rng.choice(("/v1/completions", "/v1/chat/completions"))


def _completion(body: dict[str, Any]) -> Sent:
    return Sent("POST", "/v1/completions", json.dumps(body, ensure_ascii=False).encode())


def _long(rng: random.Random, model: str) -> dict[str, Any]:
    letters = rng.choice(("abcdefgh", "0123456789 ", "etaoin shrdlu\n", "äéцж中 "))
    size = _LONG // max(len(letter.encode()) for letter in letters)
    text = "".join(rng.choices(letters, k=size))
    return {
        "model": model, "prompt": text, "max_tokens": 4, "truncate": rng.random() < 0.5,
        "stream": rng.random() < 0.3,
    }  # fmt: skip
