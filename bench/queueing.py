"""Queues and schedules: simulations, and the closed forms they are tested against.

Times are seconds throughout. Closed forms: Erlang (1917) for M/M/c, Crommelin (1932) for M/D/c,
Graham (1966) for list scheduling, Che, Tung and Wang (2002) for the hits of a cache.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.stats import poisson

# Runs on machines.


def list_schedule(seconds: Sequence[float], machines: int) -> list[float]:
    """When each job ends if every machine that is free takes the next of the list."""
    free = [0.0] * machines
    ends = []
    for one in seconds:
        ends.append(heapq.heappop(free) + one)
        heapq.heappush(free, ends[-1])
    return ends


def makespan(seconds: Sequence[float], machines: int) -> float:
    """When the last job of a list ends."""
    return max(list_schedule(seconds, machines), default=0.0)


def makespan_bounds(seconds: Sequence[float], machines: int) -> tuple[float, float]:
    """No schedule ends before the first; no list schedule after the second (Graham)."""
    longest, share = max(seconds, default=0.0), sum(seconds) / machines
    return max(longest, share), share + (1 - 1 / machines) * longest


# Requests that wait for one of c servers.


def waits(arrivals: Sequence[float], services: Sequence[float], servers: int) -> list[float]:
    """How long each request waits where the first come is served first."""
    free = [0.0] * servers
    delays = []
    for arrival, service in zip(arrivals, services, strict=True):
        begin = max(arrival, heapq.heappop(free))
        delays.append(begin - arrival)
        heapq.heappush(free, begin + service)
    return delays


def mean_wait_exponential(rate: float, service: float, servers: int) -> float:
    """Of M/M/c: Poisson arrivals, exponential service."""
    load = rate * service
    spare = 1 - load / servers
    queued = load**servers / math.factorial(servers) / spare
    served = sum(load**n / math.factorial(n) for n in range(servers))
    return queued / (served + queued) * service / (servers - load)


def mean_wait_constant(rate: float, service: float, servers: int) -> float:
    """Of M/D/c: Poisson arrivals, service of constant length."""
    load = rate * service
    total, i = 0.0, 1
    while True:
        mean = i * load
        term = poisson.sf(i * servers - 1, mean) - servers / load * poisson.sf(i * servers, mean)
        total += term
        if abs(term) < 1e-12:
            return total * service
        i += 1


# A batch that rows join and leave at every step, as in `peftlab.serve`.


@dataclass(frozen=True)
class StepCost:
    """Seconds of a step.

    Of any, of each row that decodes, of each prompt token that is read, and of each adapter among
    the rows.
    """

    fixed: float
    row: float = 0.0
    prompt: float = 0.0
    adapter: float = 0.0

    def seconds(self, rows: int, prompt_tokens: int, adapters: int = 0) -> float:
        """Of a step that so many rows take part in."""
        shared = self.fixed + self.adapter * adapters
        return shared + self.row * rows + self.prompt * prompt_tokens


@dataclass(frozen=True)
class Served:
    """A request's latencies from its arrival: to its first token, and to its last."""

    first: float
    total: float


@dataclass
class _Row:
    number: int
    unread: int
    left: int
    adapter: int
    first: float | None = None


def batch(
    arrivals: Sequence[float],
    prompts: Sequence[int],
    replies: Sequence[int],
    cost: StepCost,
    *,
    slots: int,
    prefill: int,
    adapters: Sequence[int] | None = None,
) -> list[Served]:
    """Simulate the engine: what waits enters free slots, a step reads prompts and makes tokens.

    Args:
        prompts, replies: tokens of each request. prefill: most prompt tokens of a step.
        adapters: whose each request is; None: all are one's.
    """
    whose = adapters or [0] * len(arrivals)
    now, following = 0.0, 0
    waiting: deque[_Row] = deque()
    rows: list[_Row] = []
    served: dict[int, Served] = {}
    while len(served) < len(arrivals):
        if not rows and not waiting:
            now = max(now, arrivals[following])
        while following < len(arrivals) and arrivals[following] <= now:
            about = prompts[following], replies[following], whose[following]
            waiting.append(_Row(following, *about))
            following += 1
        while waiting and len(rows) < slots:
            rows.append(waiting.popleft())
        now += _step(rows, cost, prefill)
        for row in rows:
            if row.unread == 0 and row.first is None:
                row.first = now
        for row in [row for row in rows if row.left == 0]:
            rows.remove(row)
            since = arrivals[row.number]
            assert row.first is not None
            served[row.number] = Served(row.first - since, now - since)
    return [served[number] for number in range(len(arrivals))]


def _step(rows: list[_Row], cost: StepCost, prefill: int) -> float:
    """Let every row read or decode; the oldest reads first."""
    decoding = [row for row in rows if row.unread == 0]
    read = 0
    for row in rows:
        if row.unread:
            share = min(row.unread, prefill - read)
            row.unread -= share
            read += share
            if row.unread == 0 and share:
                row.left -= 1  # the last prompt token makes the first token of the reply
    for row in decoding:
        row.left -= 1
    return cost.seconds(len(decoding), read, len({row.adapter for row in rows}))


# Adapters of which only some fit into memory.


def zipf(names: int, exponent: float) -> list[float]:
    """Shares of requests, the most wanted first."""
    weights = [1 / (rank + 1) ** exponent for rank in range(names)]
    total = sum(weights)
    return [weight / total for weight in weights]


def hits(asked: Iterable[int], slots: int) -> float:
    """Share of requests whose adapter a cache of the latest used ones has."""
    cache: OrderedDict[int, None] = OrderedDict()
    hit_count = count = 0
    for name in asked:
        count += 1
        if name in cache:
            hit_count += 1
            cache.move_to_end(name)
        else:
            cache[name] = None
            if len(cache) > slots:
                cache.popitem(last=False)
    return hit_count / count


def expected_hits(shares: Sequence[float], slots: int) -> float:
    """The same in the long run, by Che's approximation."""
    if slots >= len(shares):
        return 1.0

    def filled(age: float) -> float:
        return sum(-math.expm1(-share * age) for share in shares) - slots

    age = brentq(filled, 0.0, 1e12)
    return sum(share * -math.expm1(-share * age) for share in shares)
