"""What `bench.serve_http` counts, on outcomes that are known."""

from __future__ import annotations

import asyncio
import statistics
from itertools import pairwise

import pytest

from bench.open_loop import Outcome, arrivals, checked, latencies, without_wait
from bench.serve_http import at_capacity, open_loop, problems, requests
from bench.serve_sides import Asked

REFERENCES = ["red", "blue", "green"]


def test_arrivals_are_a_poisson_process() -> None:
    moments = arrivals(50.0, 200.0, seed=1)
    gaps = [b - a for a, b in pairwise(moments)]
    assert moments == sorted(moments) == arrivals(50.0, 200.0, seed=1)
    assert moments[0] > 0 and moments[-1] < 200
    assert len(moments) == pytest.approx(10_000, rel=0.04)
    # An exponential's deviation is its mean; half of its mass lies below ln 2 of it.
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.median(gaps) == pytest.approx(0.6931 / 50, rel=0.05)


def test_each_way_to_go_wrong_is_counted_once() -> None:
    outcomes = [
        Outcome(0, 200, "red"),
        Outcome(1, 200, "red"),  # somebody else's
        Outcome(2, 200, "grey"),  # nobody's
        Outcome(0, 429, retry_after="3"),
        Outcome(0, 429, retry_after="soon"),
        Outcome(0, 429),
        Outcome(1, 500, detail="it failed"),
        Outcome(2, 0, detail="cut off"),
    ]
    assert checked(outcomes, REFERENCES) == {
        "sent": 8, "finished": 3, "refused": 3, "lost": 2, "mixed": 1, "differing": 1,
        "details": ["cut off", "it failed"],
    }  # fmt: skip
    assert without_wait(outcomes) == 2


def test_latencies_are_of_replies_alone() -> None:
    outcomes = [
        Outcome(0, 200, "x", first=0.1 * n, total=0.1 * n + 0.9, tokens=10) for n in range(1, 101)
    ]
    result = latencies([*outcomes, Outcome(0, 429, first=None, total=99.0), Outcome(0, 0)])
    assert result["first"] == pytest.approx({"p50": 5.05, "p95": 9.505, "p99": 9.901})
    assert result["token"] == pytest.approx({"p50": 0.1, "p95": 0.1, "p99": 0.1})
    assert result["total"] == pytest.approx({"p50": 5.95, "p95": 10.405, "p99": 10.801})
    assert latencies([Outcome(0, 429)]) == {"first": None, "token": None, "total": None}


class Stuck:
    """Answers nobody before all have asked."""

    def __init__(self, people: int) -> None:
        self.people, self.asked = people, 0
        self.all_there = asyncio.Event()

    async def ask(self, one: Asked, due: float) -> Outcome:
        self.asked += 1
        if self.asked == self.people:
            self.all_there.set()
        await self.all_there.wait()
        return Outcome(one.number, 200, "red", tokens=2)


def asked() -> list[Asked]:
    return requests({"tasks": 2, "tokens": 5}, ["a", "b", "c", "d"])


def test_requests_come_whether_others_are_answered_or_not() -> None:
    async def work() -> list[Outcome]:
        return await open_loop(Stuck(20), asked(), [0.001 * i for i in range(20)], seed=0)

    outcomes = asyncio.run(asyncio.wait_for(work(), 20))
    assert len(outcomes) == 20
    assert {one.asked for one in outcomes} == {0, 1, 2, 3}


def test_adapters_take_greedy_and_sampled_requests() -> None:
    rows = [(one.number, one.adapter, one.seed) for one in asked()]
    assert rows == [(0, "task0", None), (1, "task1", None), (2, "task0", 2), (3, "task1", 3)]


class Refusing(Stuck):
    """Refuses every other request."""

    async def ask(self, one: Asked, due: float) -> Outcome:
        self.asked += 1
        await asyncio.sleep(0.001)
        return Outcome(one.number, 429 if self.asked % 2 else 200, "red", tokens=2)


def test_capacity_counts_replies_and_not_refusals() -> None:
    async def work() -> tuple[Refusing, dict[str, float]]:
        side = Refusing(0)
        return side, await at_capacity(side, asked(), slots=2, seconds=0.3)

    side, result = asyncio.run(work())
    assert result["tokens"] == pytest.approx(2 * result["requests"])
    assert 0 < result["requests"] < side.asked / 0.3


def side(**changes: object) -> dict[str, object]:
    counts = {"sent": 9, "finished": 5, "refused": 4, "lost": 0, "mixed": 0, "differing": 1}
    return {**counts, "details": [], **changes}


@pytest.mark.parametrize(
    "counts, said",
    [
        ({}, ""),
        ({"lost": 2, "details": ["cut off"]}, "2 lost at 2 × (http); cut off"),
        ({"mixed": 1}, "1 mixed at 2 × (http)"),
        ({"refused_without_wait": 3}, "3 refused_without_wait at 2 × (http)"),
        ({"refused": 0}, "nothing was refused at 2 ×; take more --seconds"),
    ],
)
def test_what_must_not_be_is_said(counts: dict[str, object], said: str) -> None:
    load = {"share": 2.0, "http": side(**counts), "engine": side()}
    assert problems({"loads": [load]}) == said
