"""A file of very many rows: what it takes to read, to train on and to evaluate, and how long.

    python -m bench.large_data --rows 1000 1000000

Each size runs in a process of its own: a file of short rows is written, read as a task, trained on
for some steps from row to row all over it, and its cut test split evaluated. What counts is how
much more memory the larger one needs; then how long reading takes, and a preview.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.pairing import device_name

_WORDS = (
    "the",
    "small",
    "red",
    "house",
    "near",
    "an",
    "old",
    "river",
    "has",
    "two",
    "open",
    "doors",
)


def main() -> None:
    """Measure and print; the last line is a JSON object where asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone is not None:
        print(json.dumps(measured(arguments.alone, arguments.model, arguments.steps)))
        return
    found = {rows: _apart(rows, arguments) for rows in arguments.rows}
    for rows, one in found.items():
        seconds = ", ".join(f"{name} {value:.1f} s" for name, value in one["seconds"].items())
        print(f"{rows:>9,} rows, {one['bytes'] / 2**20:.0f} MB: {seconds}")
        print(f"{'':>9} peak {', '.join(f'{n} {v / 1e6:.0f} MB' for n, v in one['peak'].items())}")
    least, most = found[min(found)], found[max(found)]
    for name in most["peak"]:
        more = most["peak"][name] - least["peak"][name]
        print(f"{name}: {more / 1e6:.0f} MB more at {max(found):,} rows than at {min(found):,}")
    if arguments.json:
        print(json.dumps({"found": found, "device": device_name()}))


def _apart(rows: int, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.jsonl"
        write(path, rows)
        command = [
            sys.executable, "-m", "bench.large_data", "--alone", str(path), "--model",
            arguments.model, "--steps", str(arguments.steps),
        ]  # fmt: skip
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return {**json.loads(done.stdout.splitlines()[-1]), "bytes": path.stat().st_size}


def write(path: Path, rows: int) -> None:
    """A file of so many rows, each with a source of its own."""
    rng = random.Random(0)
    with path.open("w") as file:
        for i in range(rows):
            words = " ".join(rng.choices(_WORDS, k=12))
            file.write(json.dumps({"source": f"{i} {words}", "target": words[:30]}) + "\n")


def measured(path: Path, model: str, steps: int) -> dict[str, dict[str, float]]:
    """Seconds of each part and the process's peak after it, in bytes."""
    import peftlab as pl
    from peftlab.training import TrainConfig, train

    seconds, peak = dict[str, float](), dict[str, float]()

    def begin() -> float:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        return time.perf_counter()

    def done(name: str, begun: float) -> None:
        seconds[name] = time.perf_counter() - begun
        peak[name] = _peak()

    loaded = pl.load(model)
    warm = pl.load_task("demo", limit=20, test_limit=4)
    train(loaded, pl.LoRA(rank=2), warm, TrainConfig(steps=2))
    begun = begin()
    pl.load_task(path, preview=1000)
    done("preview", begun)
    begun = begin()
    task = pl.load_task(path, test_limit=100)
    done("reading", begun)
    with tempfile.TemporaryDirectory() as folder:
        begun = begin()
        config = TrainConfig(steps=steps, validation_limit=64)
        trained = train(loaded, pl.LoRA(rank=2), task, config, folder=Path(folder))
        done("training", begun)
    begun = begin()
    pl.evaluate(loaded, trained.adaptation, task)
    done("evaluation", begun)
    return {"seconds": seconds, "peak": peak}


def _peak() -> float:
    """The largest resident size of this process since the last part began."""
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024.0 * int(line.split()[1])
    raise SystemExit("this system does not tell a process's peak (VmHWM)")


if __name__ == "__main__":
    main()
