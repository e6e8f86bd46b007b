"""Requests that come whether the ones before are answered or not: when, and what came of each.

Latencies count from the moment a request was due, so that a client or a server that falls behind
cannot hide it (no coordinated omission).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes:
        asked: which text was asked for, as a place among the references.
        status: of HTTP, 200 where it went well in process too, 0 for no answer at all.
        first, total: seconds since it was due. tokens: of the reply.
        retry_after: the header of a refusal. detail: why there is no reply.
    """

    asked: int
    status: int
    text: str = ""
    first: float | None = None
    total: float = 0.0
    tokens: int = 0
    retry_after: str | None = None
    detail: str = ""


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments of a Poisson process of so many requests a second."""
    rng, moment, moments = random.Random(seed), 0.0, []
    while (moment := moment + rng.expovariate(rate)) < seconds:
        moments.append(moment)
    return moments


def checked(outcomes: Sequence[Outcome], references: Sequence[str]) -> dict[str, Any]:
    """Counts of what must not be: requests without an answer, and replies of somebody else.

    `differing` replies are nobody's: a near tie that a batch decides otherwise than a row alone.
    """
    known = set(references)
    replies = [one for one in outcomes if one.status == 200]
    foreign = [one for one in replies if one.text != references[one.asked]]
    refused = [one for one in outcomes if one.status == 429]
    return {
        "sent": len(outcomes),
        "finished": len(replies),
        "refused": len(refused),
        "lost": len(outcomes) - len(replies) - len(refused),
        "mixed": sum(one.text in known for one in foreign),
        "differing": sum(one.text not in known for one in foreign),
        "details": sorted({one.detail for one in outcomes if one.status not in (200, 429)})[:5],
    }


def latencies(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float] | None]:
    """Percentiles of first token, time per further token and total, in seconds, of all replies."""
    replies = [one for one in outcomes if one.status == 200 and one.first is not None]
    first = [one.first for one in replies if one.first is not None]
    each = [
        (one.total - one.first) / (one.tokens - 1)
        for one in replies
        if one.first is not None and one.tokens > 1
    ]
    total = [one.total for one in replies]
    return {"first": _percentiles(first), "token": _percentiles(each), "total": _percentiles(total)}


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    levels = np.percentile(values, PERCENTILES)
    return {f"p{level}": float(value) for level, value in zip(PERCENTILES, levels, strict=True)}


def without_wait(outcomes: Sequence[Outcome]) -> int:
    """Refusals that do not say in how many seconds to come again."""
    waits = [one.retry_after or "" for one in outcomes if one.status == 429]
    return sum(not (wait.isdecimal() and int(wait) > 0) for wait in waits)
