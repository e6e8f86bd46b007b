"""How long a person waits before anything happens: the commands' start, and loading a model.

    python -m bench.load --json

The peer of loading is transformers' own `from_pretrained`; ours checks every site besides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.pairing import device_name
from bench.workloads import make_model

_COMMANDS = {"help": ["--help"], "methods": ["methods", "--model", "gpt2-medium"]}


def main() -> None:
    """Measure and print; the last line is a JSON object where asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=("mini", "small"), default="small")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    starts = {
        name: statistics.median(_started(words) for _ in range(arguments.repeats))
        for name, words in _COMMANDS.items()
    }
    ours, peer = _loaded(arguments.size, arguments.repeats)
    result = {
        "ours": ours, "peer": peer, "ratio": peer / ours, "memory_ratio": 1.0,
        "start_seconds": starts, "device": device_name(),
    }  # fmt: skip
    for name, seconds in starts.items():
        print(f"peftlab {name}: {seconds:.2f} s")
    print(f"loading GPT-2 {arguments.size}: ours {ours:.2f} s, transformers {peer:.2f} s")
    if arguments.json:
        print(json.dumps(result))


def _started(words: list[str]) -> float:
    begun = time.perf_counter()
    command = [sys.executable, "-m", "peftlab", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _loaded(size: str, repeats: int) -> tuple[float, float]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from peftlab.frozen.model import FrozenLM

    with tempfile.TemporaryDirectory() as name:
        folder = make_model(size, Path(name))
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            FrozenLM.load(folder)
            times[0].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            AutoTokenizer.from_pretrained(folder)
            AutoModelForCausalLM.from_pretrained(folder)
            times[1].append(time.perf_counter() - begun)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


if __name__ == "__main__":
    main()
