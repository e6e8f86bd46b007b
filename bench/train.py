"""Training throughput and memory against PEFT with transformers' Trainer, on the same rows.

    python -m bench.train --method lora --workload dialogsum --peer peft-dropout0 --json

Peers: `peft` as a user would write it (GPT-2's default dropout, random batches), `peft-dropout0`
the same without dropout, `peft-grouped` besides with batches of similar length, `peft-alora` PEFT's
LoRA that begins at the cue, `trl` TRL's SFTTrainer, whose head runs on targets only. Methods that
PEFT lacks are trained by the same Trainer on a hand-written module or on unfrozen blocks. Ours goes
through `peftlab.training.train`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.pairing import Measured, base_name, common_arguments, compare, report
from bench.workloads import METHODS, WORKLOADS, make_model, make_task, spec

PEERS = ("peft", "peft-dropout0", "peft-grouped", "peft-alora", "trl")
_RATE = 1e-4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--method", choices=METHODS, default="lora")
    parser.add_argument("--workload", choices=WORKLOADS, default="dialogsum")
    parser.add_argument("--peer", choices=PEERS, default="peft-dropout0")
    parser.add_argument(
        "--rows", type=int, default=64, help="training rows; an epoch has all of them"
    )
    parser.add_argument(
        "--epochs", type=int, default=1, help="5 for the methods that keep the trunk"
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rates", type=int, default=1, help="learning rates of a sweep")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--begin", choices=("row", "cue"), default="row", help="of ours")
    parser.add_argument(
        "--again", action="store_true", help="sources have been read, as after the first epoch"
    )
    parser.add_argument("--plain", action="store_true", help="ours without its fast paths")
    common_arguments(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dropout = 0.1 if arguments.peer == "peft" else 0.0
        settings = vars(arguments) | {
            "model": str(make_model(arguments.size, Path(folder), dropout, arguments.model))
        }
        settings["peer_side"] = arguments.peer
        result = compare(ours, peer, settings, arguments.repeats)
    what = f"{arguments.method}, {arguments.workload}, {base_name(arguments)}"
    title = f"{what}: rows/s against {arguments.peer}"
    report(result, title, arguments.json)


def _steps(settings: dict[str, Any]) -> int:
    return settings["epochs"] * settings["rows"] // settings["batch_size"]


def ours(settings: dict[str, Any]) -> Callable[[], Measured]:
    """peftlab's own loop."""
    from peftlab.frozen.model import FrozenLM
    from peftlab.measure import phase, tune_allocator
    from peftlab.methods import parse_one
    from peftlab.training import TrainConfig, train
    from peftlab.trunk import TrunkStore

    if settings["malloc"] != "none":
        tune_allocator()
    model = FrozenLM.load(settings["model"])
    task = make_task(settings["workload"], settings["rows"])
    method = parse_one(spec(settings["method"], settings["model"], settings["begin"]))

    def epoch(store: TrunkStore) -> None:
        size = settings["batch_size"]
        config = TrainConfig(steps=settings["rows"] // size, batch_size=size, evaluate_every=0)
        train(model, method, task, config, store=store)

    def work() -> Measured:
        losses: list[float] = []
        seconds, store = 0.0, TrunkStore(8 << 30)
        if settings["again"]:
            epoch(store)
        with phase("train", "cpu") as cost:
            for index in range(settings["rates"]):
                config = TrainConfig(
                    steps=_steps(settings), batch_size=settings["batch_size"], evaluate_every=0,
                    learning_rate=_RATE * (index + 1), precision=settings["precision"], warmup=0.0,
                    fast=not settings["plain"],
                )  # fmt: skip
                begun = time.perf_counter()
                trained = train(model, method, task, config, store=store)
                seconds += time.perf_counter() - begun
                losses += trained.losses
        units = _steps(settings) * settings["batch_size"] * settings["rates"]
        memory = cost.growth_bytes - store.bytes_in_memory
        return Measured(seconds, units, memory, losses)

    return work


def peer(settings: dict[str, Any]) -> Callable[[], Measured]:
    """transformers' Trainer on PEFT's model, or TRL's trainer."""
    from bench.peers import trainer_run
    from peftlab.measure import phase, tune_allocator

    if settings["malloc"] == "both":
        tune_allocator()
    prepare = trainer_run(settings)

    def work() -> Measured:
        losses: list[float] = []
        seconds, memory = 0.0, 0
        for index in range(settings["rates"]):
            run = prepare(_RATE * (index + 1), _steps(settings))
            with phase("train", "cpu") as cost:
                begun = time.perf_counter()
                losses += run()
                seconds += time.perf_counter() - begun
            memory = max(memory, cost.growth_bytes)
        units = _steps(settings) * settings["batch_size"] * settings["rates"]
        return Measured(seconds, units, memory, losses)

    return work


if __name__ == "__main__":
    main()
