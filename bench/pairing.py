"""Two sides doing the same work in turn, each in a process of its own; medians, spread, ratios."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measured:
    """One repetition of one side: units of work, seconds, bytes above the loaded model, a check."""

    seconds: float
    units: float
    memory: int
    check: list[float]


Side = Callable[[dict[str, Any]], Callable[[], Measured]]


def _serve(side: Side, settings: dict[str, Any], pipe: Connection) -> None:
    import torch

    torch.set_num_threads(settings["threads"])
    work = side(settings)
    pipe.send("ready")
    while pipe.recv() == "go":
        pipe.send(asdict(work()))


class Worker:
    """A side in its own process, so that its memory and its caches are its own."""

    def __init__(self, side: Side, settings: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(side, settings, other), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def measure(self) -> Measured:
        """One repetition; the other side waits meanwhile."""
        self.pipe.send("go")
        return Measured(**self.pipe.recv())

    def close(self) -> None:
        """End the process."""
        self.pipe.send("stop")
        self.process.join()


def compare(ours: Side, peer: Side, settings: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Alternate the two sides and report medians; `ratio` above 1 means that ours is faster."""
    workers = Worker(ours, settings), Worker(peer, settings)
    rounds = [[worker.measure() for worker in workers] for _ in range(repeats + 1)][1:]
    for worker in workers:
        worker.close()
    speeds = [[m.units / m.seconds for m in pair] for pair in rounds]
    ratios = [a / b for a, b in speeds]
    memory = [max(pair[i].memory for pair in rounds) for i in (0, 1)]
    first = rounds[0]
    pairs = list(zip(first[0].check, first[1].check, strict=False))
    gap = max((abs(a - b) for a, b in pairs), default=0.0)
    return {
        "ours": statistics.median(a for a, _ in speeds),
        "peer": statistics.median(b for _, b in speeds),
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "memory_ours": memory[0],
        "memory_peer": memory[1],
        "memory_ratio": memory[0] / max(1, memory[1]),
        "check_gap": gap,
        "check_differing": sum(a != b for a, b in pairs) / max(1, len(pairs)),
        "check_first": [first[0].check[:1], first[1].check[:1]],
        "device": device_name(),
        "settings": settings,
    }


def device_name() -> str:
    """The processor or GPU, by the name that the environment record uses."""
    from peftlab.measure import environment

    hardware = environment()["hardware"]
    gpus = hardware.get("gpus") or []
    return str(gpus[0]) if gpus else f"{hardware.get('cpu')} ({hardware.get('cores')} cores)"


def report(result: dict[str, Any], title: str, as_json: bool) -> None:
    """A table for people; the last line is a JSON object where asked for."""
    table = Table(title=title)
    for column in ("", "per second", "memory above the model, MiB"):
        table.add_column(column, justify="right" if column else "left")
    for side in ("ours", "peer"):
        table.add_row(side, f"{result[side]:.2f}", f"{result[f'memory_{side}'] / 2**20:.0f}")
    low, high = result["ratio_spread"]
    table.add_row(
        "ratio", f"{result['ratio']:.2f} ({low:.2f}–{high:.2f})", f"{result['memory_ratio']:.2f}"
    )
    Console().print(table)
    if as_json:
        print(json.dumps(result))


def base_name(arguments: argparse.Namespace) -> str:
    """What titles call the base."""
    return arguments.model.name if arguments.model else f"GPT-2 {arguments.size}"


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """What every benchmark takes."""
    parser.add_argument("--size", choices=("mini", "small", "demo"), default="mini")
    parser.add_argument("--model", type=Path, help="a folder of GPT-2's or Llama's layout, for any")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--malloc", choices=("ours", "both", "none"), default="ours", help="who keeps freed memory"
    )
