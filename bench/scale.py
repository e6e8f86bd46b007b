"""What large plans cost: measured on a small scale, simulated, and reckoned from assumptions.

    python -m bench.scale serve     latency under load on the real engine, beside the simulation
    python -m bench.scale grid      a comparison's makespan with one and two runs at once, likewise
    python -m bench.scale plan      the tables of docs/scale.md

With --json the last line is an object with all figures.
"""

from __future__ import annotations

import argparse
import json
import random
from itertools import accumulate
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import scale_grid, scale_plan, scale_serve
from bench.queueing import StepCost, batch, makespan
from bench.scale_plan import Machine

RUNS, ADAPTERS = 1000, 10_000
_LOADS = (0.3, 0.6, 0.9)


def main() -> None:
    """Measure or reckon, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("serve", "grid", "plan"))
    parser.add_argument("--requests", type=int, default=300, help="of each load")
    parser.add_argument("--steps", type=int, default=60, help="of each run of the grid")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "serve":
        measured = scale_serve.measure(arguments.requests, _LOADS)
        _show_serving(measured)
    elif arguments.what == "grid":
        measured = scale_grid.measure(arguments.steps)
        _show_grid(measured)
    else:
        measured = {"grid": grid(), "base": large_base(), "adapters": many_adapters()}
        _show_plan(measured)
    if arguments.json:
        print(json.dumps(measured))


def grid(machine: Machine | None = None, passes: float = 4e6) -> list[dict[str, Any]]:
    """1,000 runs of the 70 B base and of one of 1 B: hours and dollars on k machines.

    Runs differ: a log-normal spread of a factor of 1.5, as full fine-tuning differs from prompts.
    """
    machine, rng = machine or Machine(), random.Random(0)
    shape, points = scale_plan.large_shape(), []
    spread = [rng.lognormvariate(0, 0.4) for _ in range(RUNS)]
    for name, size in (("1 B", 1.24e9), ("8 B", 8.03e9), ("70 B", float(shape.size))):
        own = scale_plan.training_seconds(shape, passes, machine) * size / shape.size
        seconds = [own * factor for factor in spread]
        for machines in (1, 8, 64, 512):
            hours = makespan(seconds, machines) / 3600
            dollars = machines * hours * machine.price
            points.append({"base": name, "machines": machines, "hours": hours, "dollars": dollars})
    return points


def large_base(machine: Machine | None = None) -> dict[str, Any]:
    """Memory and speed of the 70 B base."""
    machine, shape = machine or Machine(), scale_plan.large_shape()
    return {
        "parameters": shape.size,
        "weights": scale_plan.weights(shape),
        "step_seconds": {
            name: scale_plan.step_seconds(shape, name, machine) for name in ("bf16", "int8", "nf4")
        },
        "activations_8192": scale_plan.activations(shape, 8192, recompute=False),
        "recomputed_8192": scale_plan.activations(shape, 8192, recompute=True),
        "keys_values": scale_plan.keys_values(shape),
        "lora_bytes": scale_plan.adapter_bytes(shape, "lora:rank=8,targets=q+v"),
    }


def many_adapters(machine: Machine | None = None) -> list[dict[str, Any]]:
    """10,000 adapters of the 70 B base by memory for them; and latency under load beside it."""
    machine, shape = machine or Machine(), scale_plan.large_shape()
    estimates = []
    for method in ("lora:rank=8,targets=q+v", "prompt_tuning:length=20", "ia3"):
        size = scale_plan.adapter_bytes(shape, method)
        for memory in (8e9, 64e9):
            about = scale_plan.adapters(size, ADAPTERS, memory, 1.0, machine)
            estimates.append({"method": method, "bytes": size, "memory": memory, **about})
    return estimates


def latency(step: float, slots: int, rate: float, count: int = 2000) -> tuple[float, float]:
    """Median and 95th percentile of a reply's seconds: 200 tokens after prompts of 500."""
    rng = random.Random(0)
    arrivals = list(accumulate(rng.expovariate(rate) for _ in range(count)))
    # Reading 512 prompt tokens takes about as long as one more step at this size.
    cost = StepCost(fixed=step, row=step / 200, prompt=step / 512)
    served = batch(arrivals, [500] * count, [200] * count, cost, slots=slots, prefill=512)
    totals = sorted(one.total for one in served)
    return totals[count // 2], totals[int(0.95 * count)]


def _show_serving(serving: dict[str, Any]) -> None:
    cost = serving["cost"]
    print(
        f"{serving['capacity']:.1f} requests/s at most; "
        f"a step takes {1e3 * cost['fixed']:.2f} ms + "
        f"{1e3 * cost['row']:.3f} a row + {1e3 * cost['prompt']:.4f} a prompt token + "
        f"{1e3 * cost['adapter']:.3f} an adapter; loading an "
        f"adapter {1e3 * serving['adapter_load_seconds']:.1f} ms"
    )
    table = _table(
        "load",
        "first p50",
        "simulated",
        "first p95",
        "simulated",
        "total p50",
        "simulated",
        "total p95",
        "simulated",
    )
    for point in serving["points"]:
        cells = [f"{point['load']:.0%}"]
        for name in ("first_p50", "first_p95", "total_p50", "total_p95"):
            cells += [f"{1e3 * point[side][name]:.1f} ms" for side in ("measured", "simulated")]
        table.add_row(*cells)
    Console(width=120).print(table)


def _show_grid(measured: dict[str, Any]) -> None:
    table = _table("at once", "start", "makespan", "simulated", "bounds")
    for point in measured["points"]:
        low, high = point["bounds"]
        table.add_row(
            str(point["at_once"]), f"{point['start']:.1f} s", f"{point['measured']:.1f} s",
            f"{point['simulated']:.1f} s", f"{low:.1f}–{high:.1f} s",
        )  # fmt: skip
    Console(width=120).print(table)


def _show_plan(plan: dict[str, Any]) -> None:
    table = _table("base", "machines", "hours", "dollars")
    for row in plan["grid"]:
        table.add_row(
            row["base"], str(row["machines"]), f"{row['hours']:,.1f}", f"{row['dollars']:,.0f}"
        )
    Console().print(table)
    base = plan["base"]
    for name, size in base["weights"].items():
        print(f"70 B in {name}: {size / 1e9:,.0f} GB of weights")
    for name, seconds in base["step_seconds"].items():
        print(f"  a decoding step in {name}: {1e3 * seconds:,.0f} ms")
    for name in ("activations_8192", "recomputed_8192", "keys_values", "lora_bytes"):
        print(f"  {name}: {base[name] / 1e9:,.4f} GB")
    table = _table("method", "bytes", "on disk", "memory", "in memory", "hits", "a miss")
    for row in plan["adapters"]:
        table.add_row(
            row["method"], f"{row['bytes'] / 1e6:,.1f} MB", f"{row['disk'] / 1e9:,.0f} GB",
            f"{row['memory'] / 1e9:,.0f} GB", f"{row['slots']:,}", f"{row['hits']:.0%}",
            f"{1e3 * row['miss_seconds']:,.1f} ms",
        )  # fmt: skip
    Console(width=120).print(table)
    for name, step in base["step_seconds"].items():
        for slots in (16, 64):
            most = slots / (200 * step * (1 + slots / 200) + 500 * step / 512 * slots)
            told = [latency(step, slots, share * most) for share in _LOADS]
            shown = ", ".join(
                f"{a:.0f}/{b:.0f} s at {s:.0%}" for s, (a, b) in zip(_LOADS, told, strict=True)
            )
            print(f"{name}, {slots} rows: {most:.2f} requests/s at most; p50/p95 {shown}")


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, justify="right")
    return table


if __name__ == "__main__":
    main()
