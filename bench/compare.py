"""The whole table: nine methods trained and evaluated, against PEFT's pieces in turn.

    python -m bench.compare --workload dialogsum --size mini --steps 100 --json

Ours is the command `peftlab compare`, in a process of its own, measuring all that it always does.
The peer is `bench.peer_table`: for each method a fresh model, Trainer, `generate` and rouge-score;
it does whole rows where ours begins at the cue (`--begin cue`). Both train the same steps of the
same batch size and generate for as many test rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.pairing import device_name
from bench.workloads import DATA, METHODS, make_model, spec


def main() -> None:
    """Measure and print; the last line is a JSON object where asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workload", choices=("dialogsum", "e2e"), default="dialogsum")
    parser.add_argument("--size", choices=("mini", "small"), default="mini")
    parser.add_argument("--model", type=Path, help="a folder of GPT-2's or Llama's layout, for any")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=100, help="training, validation and test rows")
    parser.add_argument("--begin", choices=("row", "cue"), default="row", help="of ours")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(arguments.size, Path(folder) / "model", 0.0, arguments.model)
        common = ["--model", str(model), "--steps", str(arguments.steps)]
        task = str(DATA / arguments.workload)
        methods = ["hard_prompt", *(spec(method, model, arguments.begin) for method in METHODS)]
        ours = [
            sys.executable, "-m", "peftlab", "compare", *common, "--task", task,
            "--methods", ",".join(methods), "--batch-size", "8",
            "--limit", str(arguments.rows), "--out", str(Path(folder) / "runs"),
            "--evaluation-share", "0",  # as many test rows as the peer
        ]  # fmt: skip
        peer = [
            sys.executable, "-m", "bench.peer_table", *common, "--workload", arguments.workload,
            "--rows", str(arguments.rows),
        ]  # fmt: skip
        seconds = {"peer": _timed(peer), "ours": _timed(ours)}
    result = {**seconds, "ratio": seconds["peer"] / seconds["ours"], "device": device_name()}
    print(f"peer {seconds['peer']:.0f} s, ours {seconds['ours']:.0f} s: {result['ratio']:.2f} ×")
    if arguments.json:
        print(json.dumps({**result, "settings": vars(arguments)}))


def _timed(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
