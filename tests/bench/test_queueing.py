"""Simulations against closed forms."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from bench.queueing import (
    StepCost,
    batch,
    expected_hits,
    hits,
    list_schedule,
    makespan,
    makespan_bounds,
    mean_wait_constant,
    mean_wait_exponential,
    waits,
    zipf,
)

MANY = 60_000


def poisson(rate: float, count: int = MANY, seed: int = 0) -> list[float]:
    rng, now, moments = random.Random(seed), 0.0, []
    for _ in range(count):
        now += rng.expovariate(rate)
        moments.append(now)
    return moments


def test_closed_forms_agree_with_each_other_and_with_textbooks() -> None:
    # One server: ρ s / (1 − ρ), and half of that for constant service (Pollaczek, Khinchine).
    assert mean_wait_exponential(0.5, 1.0, 1) == pytest.approx(1.0)
    assert mean_wait_constant(0.5, 1.0, 1) == pytest.approx(0.5)
    assert mean_wait_constant(0.4, 2.0, 1) == pytest.approx(2 * 0.8 / 2 / 0.2)
    # Two servers with load 1.5: Erlang's C is 9/14.
    assert mean_wait_exponential(1.5, 1.0, 2) == pytest.approx(9 / 14 / 0.5)
    assert mean_wait_constant(1.5, 1.0, 2) < mean_wait_exponential(1.5, 1.0, 2)


@pytest.mark.parametrize(("servers", "rate"), [(1, 0.7), (3, 2.4)])
def test_the_queue_waits_as_long_as_theory_says(servers: int, rate: float) -> None:
    rng = random.Random(1)
    exponential = [rng.expovariate(1.0) for _ in range(MANY)]
    wait = fmean(waits(poisson(rate), exponential, servers))
    assert wait == pytest.approx(mean_wait_exponential(rate, 1.0, servers), rel=0.1)
    wait = fmean(waits(poisson(rate), [1.0] * MANY, servers))
    assert wait == pytest.approx(mean_wait_constant(rate, 1.0, servers), rel=0.1)


@pytest.mark.parametrize(("slots", "rate"), [(1, 0.7), (4, 3.2)])
def test_a_batch_of_constant_steps_is_a_queue_of_its_slots(slots: int, rate: float) -> None:
    """Replies of one length, whatever the batch: M/D/c, but for the step that is under way."""
    count, tokens = 8_000, 100
    arrivals, cost = poisson(rate, count), StepCost(fixed=1 / tokens)
    served = batch(arrivals, [1] * count, [tokens] * count, cost, slots=slots, prefill=1000)
    wait = fmean(one.total for one in served) - 1.0
    expected = fmean(waits(arrivals, [1.0] * count, slots))
    assert wait == pytest.approx(expected, abs=2 / tokens, rel=0.02)
    assert expected == pytest.approx(mean_wait_constant(rate, 1.0, slots), rel=0.25)


def test_a_batch_of_one_slot_with_geometric_replies_is_m_m_1() -> None:
    rng = random.Random(2)
    tokens = [max(1, round(rng.expovariate(1 / 50))) for _ in range(8_000)]
    arrivals, cost = poisson(0.5, len(tokens)), StepCost(fixed=1 / 50)
    served = batch(arrivals, [1] * len(tokens), tokens, cost, slots=1, prefill=1000)
    services = [count / 50 for count in tokens]
    wait = fmean(one.total - own for one, own in zip(served, services, strict=True))
    assert wait == pytest.approx(mean_wait_exponential(0.5, 1.0, 1), rel=0.15)


def test_what_a_step_costs_is_what_a_lone_request_takes() -> None:
    cost = StepCost(fixed=1.0, row=0.1, prompt=0.01)
    (one,) = batch([5.0], [30], [4], cost, slots=8, prefill=20)
    # Two steps read 20 and 10 tokens, the second makes a token; three more make one each.
    assert one.first == pytest.approx(2 * 1.0 + 30 * 0.01)
    assert one.total == pytest.approx(one.first + 3 * 1.1)


def test_list_schedules_stay_within_grahams_bounds() -> None:
    rng = random.Random(3)
    for machines in (1, 2, 5, 40):
        seconds = [rng.lognormvariate(0, 1) for _ in range(30)]
        low, high = makespan_bounds(seconds, machines)
        assert low - 1e-9 <= makespan(seconds, machines) <= high + 1e-9
    assert makespan([3, 3, 2, 2, 2], 2) == 7
    assert makespan([1.0] * 1000, 8) == 125
    assert list_schedule([2, 1, 1], 2) == [2, 1, 2]
    # Graham's worst case meets the bound: n(n−1) jobs of 1, then one of n.
    assert makespan([1] * 6 + [3], 3) == makespan_bounds([1] * 6 + [3], 3)[1] == 5


def test_hits_of_a_cache_are_ches() -> None:
    shares = zipf(1000, 1.0)
    asked = random.Random(4).choices(range(1000), shares, k=40_000)
    for slots in (10, 100, 400):
        assert hits(asked, slots) == pytest.approx(expected_hits(shares, slots), abs=0.02)
    assert expected_hits(shares, 1000) == 1.0
    assert hits([1, 1, 2, 1], 1) == 0.25
