"""Latency under load, measured on the real engine, and the queue simulation's answer to the same.

The clock is the processor time of the engine's thread: requests come at moments of that clock, so
other programs on the machine count little, and one thread's time is what an idle core would take.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import nnls

from bench.queueing import Served, StepCost, batch
from peftlab.frozen import named as base
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import State
from peftlab.serve import Engine, Library, Limits, ServeRequest
from peftlab.serve.request import Piece, Reply, Ticket
from peftlab.tasks import Task

ADAPTERS, SLOTS, PREFILL = 8, 16, 256
_REPLIES = (4, 40)  # tokens
_PERCENTILES = (50, 95)


@dataclass(frozen=True)
class Load:
    """Requests in order: when each comes, whose it is, and how long prompt and reply are."""

    arrivals: list[float]
    adapters: list[int]
    prompts: list[int]
    replies: list[int]


@dataclass(frozen=True)
class Step:
    """A step of the engine: rows that decoded, prompt tokens read, adapters, seconds."""

    rows: int
    prompt_tokens: int
    adapters: int
    seconds: float


class Bench:
    """The demo's base with adapters of random weights, stepped by hand."""

    def __init__(self, folder: Path) -> None:
        self.model, self.task = base.load("demo"), Task.load("demo")
        self.library = Library(self.model, folder)
        self.loads = self._fill(folder)
        self.steps: list[Step] = []

    def _fill(self, folder: Path) -> list[float]:
        """Save adapters, then load each; returns the seconds that loads took."""
        import torch

        method, rng, seconds = parse_one("lora:rank=8,targets=q+v"), torch.Generator(), []
        for i in range(ADAPTERS):
            state = method.init(self.model, self.task, rng.manual_seed(i))
            moved = {
                name: torch.randn(t.shape, generator=rng) * 0.02
                for name, t in state.tensors.items()
            }
            adapter = Adaptation(method, State(moved), self.task.template, base_of(self.model))
            adapter.save(folder / f"a{i}")
            begun = time.thread_time()
            self.library.load(f"a{i}")
            self.library.load_one()
            seconds.append(time.thread_time() - begun)
        return seconds

    def run(self, rate: float, count: int, seed: int) -> tuple[Load, list[Served]]:
        """Let requests come at this rate a second; returns them and what became of each."""
        rng = random.Random(seed)
        arrivals = list(np.cumsum([rng.expovariate(rate) for _ in range(count)]))
        lengths = [rng.randint(*_REPLIES) for _ in range(count)]
        adapters = [rng.randrange(ADAPTERS) for _ in range(count)]
        limits = Limits(
            slots=SLOTS, prefill_tokens=PREFILL, queue=count, queue_share=count,
            prompt_cache_bytes=0,  # repetitions ask the same again
        )  # fmt: skip
        engine = Engine(self.model, self.library, limits)
        now, asked = 0.0, 0
        firsts: dict[int, float] = {}
        ends: dict[int, float] = {}
        tickets: list[Ticket] = []
        heard: list[tuple[int, Any]] = []
        while len(ends) < count:
            if asked == len(ends):
                now = max(now, arrivals[asked])
            heard.clear()
            begun = time.thread_time()
            while asked < count and arrivals[asked] <= now:
                request = self._request(rng, lengths[asked], adapters[asked])
                tickets.append(engine.submit(request, _hear(heard, asked)))
                asked += 1
            before = engine.stats()
            engine.step()
            seconds = time.thread_time() - begun
            after, now = engine.stats(), now + seconds
            read = after.prompt_tokens - before.prompt_tokens
            joined = firsts.keys() | {number for number, _ in heard}
            taking_part = {adapters[number] for number in joined - ends.keys()}
            self.steps.append(Step(before.running, read, len(taking_part), seconds))
            for number, event in heard:
                if isinstance(event, Reply):
                    ends[number] = now
                elif isinstance(event, Piece):
                    firsts.setdefault(number, now)
                else:
                    raise event
        replies = [ticket.result(0) for ticket in tickets]
        prompts = [reply.prompt_tokens for reply in replies]
        load = Load(arrivals, adapters, prompts, [len(reply.tokens) for reply in replies])
        served = [Served(firsts.get(i, ends[i]) - t, ends[i] - t) for i, t in enumerate(arrivals)]
        return load, served

    def _request(self, rng: random.Random, length: int, adapter: int) -> ServeRequest:
        source = rng.choice(self.task.test)
        return ServeRequest(f"a{adapter}", source, length, length, truncate=True)


def _hear(heard: list[tuple[int, Any]], number: int) -> Any:
    return lambda event: heard.append((number, event))


def fitted(steps: Sequence[Step]) -> StepCost:
    """What steps cost, by least squares without negative costs; the slowest are left out.

    The slowest hundredth are steps in which something else happened, as Python's garbage collector.
    """
    limit = np.quantile([step.seconds for step in steps], 0.99)
    kept = [step for step in steps if step.seconds <= limit]
    terms = np.array([[1.0, step.rows, step.prompt_tokens, step.adapters] for step in kept])
    cost, _ = nnls(terms, np.array([step.seconds for step in kept]))
    return StepCost(*map(float, cost))


def percentiles(served: Sequence[Served]) -> dict[str, float]:
    """Of both latencies, in seconds."""
    figures = {}
    for name in ("first", "total"):
        values = np.percentile([getattr(one, name) for one in served], _PERCENTILES)
        figures |= {f"{name}_p{p}": float(v) for p, v in zip(_PERCENTILES, values, strict=True)}
    return figures


def measure(count: int, loads: Sequence[float]) -> dict[str, Any]:
    """Measure at shares of the engine's capacity, and simulate the same requests."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        bench.run(1e9, 4 * SLOTS, seed=0)  # warms up
        bench.steps.clear()
        _, everything = bench.run(1e9, 8 * SLOTS, seed=1)  # all at once: what it can do
        capacity = len(everything) / max(one.total for one in everything)
        runs = [(load, *bench.run(load * capacity, count, seed=2)) for load in loads]
        cost = fitted(bench.steps)
        points = [
            {
                "load": share,
                "measured": percentiles(served),
                "simulated": percentiles(
                    batch(
                        load.arrivals,
                        load.prompts,
                        load.replies,
                        cost,
                        slots=SLOTS,
                        prefill=PREFILL,
                        adapters=load.adapters,
                    )
                ),
            }
            for share, load, served in runs
        ]
        return {
            "capacity": capacity,
            "cost": asdict(cost),
            "adapter_load_seconds": median(bench.loads),
            "points": points,
        }
