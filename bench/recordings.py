"""All that a comparison within a given time may ask for, recorded, so that it can be replayed.

    python -m bench.recordings --out runs/demo --to demo.json --task demo --methods lora,full …

Every method is trained at four rates to every rung, to half and to the whole length, on two seeds;
then, at the rate of the lowest loss, to the whole length on `--seeds` more seeds, each of which
reads the whole test split. What is finished in `--out` is not made again, so it may be stopped at
any time, and may run beside other work: seconds are those that the plan predicts, not measured
ones. `--to` gets the numbers; `python -m tests.comparison.within.replay` reads them.
"""

from __future__ import annotations

import argparse
import json
import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peftlab.comparison.local import LocalEngine
from peftlab.comparison.resolve import ComparisonSettings, comparison_settings
from peftlab.comparison.run import looked_at
from peftlab.comparison.within.clock import Clock
from peftlab.comparison.within.costs import Costs
from peftlab.comparison.within.measured import Measured
from peftlab.comparison.within.run import candidate
from peftlab.comparison.within.screening import rungs
from peftlab.comparison.within.steps import Candidate, Read, Train
from peftlab.files import write_text
from peftlab.printable import echo
from peftlab.records import folders
from peftlab.verdict.outcome import main_metric

RATES = (1.0, 1 / 3, 3.0, 1 / 10)  # times the known one, as the full design tries them
SCREENED = (0, 1000)  # seeds that no reading has
_HOURS = 1000.0


@dataclass
class Recorder:
    """A comparison's methods on the grounds of two screening seeds, without a clock."""

    grounds: tuple[Measured, ...]
    steps: int
    seeds: int

    def of(self, one: Candidate) -> dict[str, Any]:
        """Everything about a method."""
        test = len(self.grounds[0].runs[one.name].task.test)
        rates = [one.rates[0] * times for times in RATES] if one.rates else []
        losses = {rate: self._losses(one.name, rate) for rate in rates}
        best = min(rates, key=lambda rate: _total(losses[rate], self.steps), default=None)
        last = self.seeds if one.seeded else 0
        first = 1 if one.seeded else 0
        reads = [Read(one.name, best, self.steps, seed, test)
                 for seed in range(first, last + 1)]  # fmt: skip
        return {
            "seeded": one.seeded,
            "rates": rates,
            "losses": losses,
            "best": best,
            "scores": [self._scores(step) for step in reads],
            "test_losses": [self._loss(step) for step in reads],
            "costs": self._costs(one.name, best, test),
        }

    def _losses(self, method: str, rate: float) -> dict[int, list[float | None]]:
        """By length, on each of the two seeds; None where a training failed."""
        lengths = sorted({*rungs(self.steps), self.steps // 2, self.steps})
        found: dict[int, list[float | None]] = {}
        for length in lengths:
            step = Train(method, rate, length)
            found[length] = [self._told(ground, step) for ground in self.grounds]
        return found

    def _told(self, ground: Measured, step: Train) -> float | None:
        loss = ground.do(step)
        echo(f"{step}: {loss}")
        return None if loss is None else round(float(loss), 5)

    def _scores(self, step: Read) -> Any:
        scores = self.grounds[0].do(step)
        echo(f"{step}: {'failed' if scores is None else scores.mean(0)}")
        return None if scores is None else scores.round(4).tolist()

    def _loss(self, step: Read) -> float | None:
        loss = self.grounds[0].record(step).loss.test
        return None if loss is None else round(loss, 5)

    def _costs(self, method: str, rate: float | None, test: int) -> dict[str, float]:
        """Seconds as predicted: of a training's beginning and each of its steps, of a whole run
        that reads nothing, of a test example."""
        ground = self.grounds[0]
        known = Costs(ground.runs, ground.costs.predictions, ground.every)
        run = Read(method, rate, self.steps, 1, 0)
        whole = known.of(Train(method, rate or 1.0, self.steps))
        begun = known.of(Train(method, rate or 1.0, 0))
        return {
            "begun": begun,
            "step": (whole - begun) / self.steps,
            "run": known.of(run),
            "example": (known.of(replace(run, examples=test)) - known.of(run)) / test,
        }


def _total(losses: dict[int, list[float | None]], length: int) -> float:
    return sum(math.inf if loss is None else loss for loss in losses[length])


def _ground(stack: ExitStack, out: Path, settings: ComparisonSettings, seed: int) -> Measured:
    """Of one screening seed, in a folder of its own: trials are named by rate and length alone."""
    plan = replace(settings.plan(), predict=True)
    stack.enter_context(folders.only_one(out))
    opened = stack.enter_context(LocalEngine().opened(plan, out))
    profiled, runs = looked_at(plan, opened, out, {})
    steps = plan.config.total_steps(len(plan.task.pairs("train")))
    clock, metric = Clock(_HOURS * 3600), main_metric(plan.task.metrics)
    own = {
        run.label: replace(run, seed=seed, config=replace(run.config, seed=seed))
        for run in runs
        if run.left_out is None
    }
    known = profiled.predictions
    return Measured(own, known, steps, metric, clock, opened, out, lambda *_: None)


def main() -> None:
    """Record, method by method; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=12)
    for name in ("task", "model", "methods"):
        parser.add_argument(f"--{name}")
    for name in ("steps", "batch-size", "limit", "test-limit"):
        parser.add_argument(f"--{name}", type=int)
    given = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    to, seeds, out = given.pop("to"), given.pop("seeds"), given.pop("out")
    if "methods" in given:
        given["methods"] = given["methods"].split(";")
    settings = comparison_settings(out=out, within=f"{_HOURS:.0f}h", general_text="none", **given)
    with ExitStack() as stack:
        grounds = tuple(_ground(stack, out / f"seed-{seed}", settings, seed) for seed in SCREENED)
        recorder, methods = Recorder(grounds, grounds[0].steps, seeds), {}
        first = next(iter(grounds[0].runs.values()))
        for run in grounds[0].runs.values():
            one = candidate(run)
            methods[one.name] = recorder.of(one)
            table = {
                "base": first.base.name,
                "task": first.task.name,
                "metric": grounds[0].metric,
                "steps": grounds[0].steps,
                "methods": methods,
            }
            write_text(to, json.dumps(table) + "\n")


if __name__ == "__main__":
    main()
