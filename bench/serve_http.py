"""Serving over HTTP under load: latencies, refusals, and whether every reply is the right one.

    python -m bench.serve_http --tasks 8 --workload e2e --seconds 20 --json

A real server process and an asynchronous client. Requests come as a Poisson process, at shares of
the capacity that was measured before, whether the ones before are answered or not; the same moments
are then played to the engine in this process, which is the peer. Half of the requests are greedy,
half are sampled under a seed of their own, and each has to equal what it gets alone. `ours` and
`peer` are output tokens per second at capacity, over HTTP and in process.

Ends with status 1 where a request was lost or got another's reply, or where a refusal does not say
when to come again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.open_loop import Outcome, arrivals, checked, latencies, without_wait
from bench.pairing import device_name
from bench.serve import adaptations, specs
from bench.serve_sides import Asked, InProcess, OverHttp, Server, Side, request, serving
from bench.workloads import make_model, make_task

_CAPACITY = 512  # positions of a row
_WIDTH = 130  # characters of the table
_PAUSE = 0.05  # seconds until one who was refused asks again, where capacity is measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--workload", choices=("dialogsum", "e2e"), default="e2e")
    parser.add_argument("--methods", choices=("mixed", "lora", "last-k"), default="mixed")
    parser.add_argument("--texts", type=int, default=48, help="different requests")
    parser.add_argument("--tokens", type=int, default=24, help="of a reply")
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.25, 0.5, 0.75, 2.0])
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--size", choices=("mini", "small"), default="mini")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(vars(arguments), Path(folder))
    show(result)
    if arguments.json:
        print(json.dumps(result))
    if wrong := problems(result):
        raise SystemExit(wrong)


def measure(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Both sides on the same requests; see the module."""
    import torch

    from peftlab.frozen.model import FrozenLM
    from peftlab.serve import Engine, Library, Limits

    torch.set_num_threads(settings["threads"])
    model = FrozenLM.load(make_model(settings["size"], folder / "model"))
    task, kinds = make_task(settings["workload"], settings["texts"]), specs(settings)
    for i, adaptation in enumerate(adaptations(model, task, kinds)):
        adaptation.save(folder / "adapters" / f"task{i}")
    asked = requests(settings, [example.source for example in task.test])
    limits = Limits(
        slots=settings["slots"], capacity=_CAPACITY, prefill_tokens=256, queue=settings["queue"],
        prompt_cache_bytes=0,  # the same few texts are asked again and again
    )  # fmt: skip
    library = Library(model, folder / "adapters")
    references = alone(Engine(model, library, replace(limits, slots=1)), asked)
    engine = Engine(model, library, limits)
    options = {
        "slots": limits.slots, "capacity": _CAPACITY, "max-queue": limits.queue, "prompt-cache": 0,
    }  # fmt: skip
    with serving(folder / "model", folder / "adapters", options, settings["threads"]) as server:
        engine.start()
        try:
            return asyncio.run(_both(settings, asked, references, server, engine))
        finally:
            engine.stop()


def requests(settings: dict[str, Any], sources: Sequence[str]) -> list[Asked]:
    """Different requests, adapters in turn; each adapter's are greedy and sampled in turn."""
    made = []
    for i, source in enumerate(sources):
        turn, adapter = divmod(i, settings["tasks"])
        seed = i if turn % 2 else None
        made.append(Asked(i, f"task{adapter}", source, settings["tokens"], seed))
    return made


def alone(engine: Any, asked: Sequence[Asked]) -> list[str]:
    """What each request gets with nobody else in the batch."""
    texts = []
    for one in asked:
        ticket = engine.submit(request(one), stream=False)
        while engine.step():
            pass
        texts.append(ticket.result(0).text)
    return texts


async def _both(
    settings: dict[str, Any], asked: list[Asked], references: list[str], server: Server, engine: Any
) -> dict[str, Any]:
    sides: dict[str, Side] = {"http": OverHttp(server.address), "engine": InProcess(engine)}
    memory = {"http": lambda: server.memory, "engine": lambda: psutil.Process().memory_info().rss}
    for side in sides.values():  # adapters come into memory, allocators fill
        await at_capacity(side, asked, settings["slots"], 3.0)
    before = {name: held() for name, held in memory.items()}
    capacity, grown = {}, {}
    for name, side in sides.items():
        capacity[name] = await at_capacity(side, asked, settings["slots"], settings["seconds"])
        grown[name] = max(0, memory[name]() - before[name])
    loads = []
    for number, share in enumerate(settings["loads"]):
        rate = share * capacity["http"]["requests"]
        due = arrivals(rate, settings["seconds"], seed=number)
        result: dict[str, Any] = {"share": share, "rate": rate}
        for name, side in sides.items():
            outcomes = await open_loop(side, asked, due, seed=number)
            result[name] = checked(outcomes, references) | latencies(outcomes)
            if name == "http":
                result[name]["refused_without_wait"] = without_wait(outcomes)
        loads.append(result)
    ours, peer = capacity["http"]["tokens"], capacity["engine"]["tokens"]
    return {
        "ours": ours, "peer": peer, "ratio": ours / peer,
        "memory_ours": grown["http"], "memory_peer": grown["engine"],
        "memory_ratio": grown["http"] / max(1, grown["engine"]),
        "requests_per_second": {name: rates["requests"] for name, rates in capacity.items()},
        "references": len(references), "references_distinct": len(set(references)),
        "loads": loads, "device": device_name(), "settings": settings,
    }  # fmt: skip


async def at_capacity(
    side: Side, asked: list[Asked], slots: int, seconds: float
) -> dict[str, float]:
    """Requests and tokens per second with all slots taken and as many more ready to follow."""
    source, finished, tokens = itertools.cycle(asked), 0, 0
    begun = time.perf_counter()
    until = begun + seconds

    async def person() -> None:
        nonlocal finished, tokens
        while time.perf_counter() < until:
            outcome = await side.ask(next(source), time.perf_counter())
            if outcome.status == 429:
                await asyncio.sleep(_PAUSE)
                continue
            if outcome.status != 200:
                raise SystemExit(f"capacity cannot be measured: {outcome}")
            finished, tokens = finished + 1, tokens + outcome.tokens

    await asyncio.gather(*(person() for _ in range(2 * slots)))
    took = time.perf_counter() - begun
    return {"requests": finished / took, "tokens": tokens / took}


async def open_loop(
    side: Side, asked: Sequence[Asked], due: Sequence[float], seed: int
) -> list[Outcome]:
    """The outcome of each request; requests at random, at these moments from now on."""
    rng, begun = random.Random(seed), time.perf_counter()

    async def one(moment: float, which: Asked) -> Outcome:
        await asyncio.sleep(begun + moment - time.perf_counter())
        return await side.ask(which, begun + moment)

    return await asyncio.gather(*(one(moment, rng.choice(asked)) for moment in due))


def show(result: dict[str, Any]) -> None:
    """Tables for people."""
    table = Table(title="Latency against load, milliseconds: p50 / p95 / p99")
    for column in (
        "load",
        "requests/s",
        "side",
        "answered",
        "refused",
        "first token",
        "each",
        "all",
    ):
        table.add_column(column, justify="left" if column == "side" else "right", no_wrap=True)
    for load in result["loads"]:
        for name in ("http", "engine"):
            side = load[name]
            table.add_row(
                f"{load['share']:g} ×", f"{load['rate']:.1f}", name, str(side["finished"]),
                str(side["refused"]), *(_row(side[part]) for part in ("first", "token", "total")),
            )  # fmt: skip
    Console(width=max(_WIDTH, Console().width)).print(table)
    print(
        f"capacity: {result['ours']:.0f} tokens/s over HTTP, {result['peer']:.0f} in process, "
        f"ratio {result['ratio']:.2f}"
    )


def _row(percentiles: dict[str, float] | None) -> str:
    if percentiles is None:
        return "–"
    return " / ".join(f"{1000 * value:,.0f}" for value in percentiles.values())


def problems(result: dict[str, Any]) -> str:
    """What must not be, in words; empty where there is nothing of it."""
    faults = []
    for load in result["loads"]:
        for name in ("http", "engine"):
            side = load[name]
            faults += [
                f"{side[what]} {what} at {load['share']:g} × ({name})"
                for what in ("lost", "mixed", "refused_without_wait")
                if side.get(what)
            ]
            faults += side["details"]
        if load["share"] >= 2 and not load["http"]["refused"]:
            faults.append(f"nothing was refused at {load['share']:g} ×; take more --seconds")
    return "; ".join(faults)


if __name__ == "__main__":
    main()
