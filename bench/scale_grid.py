"""The makespan of a real comparison with one run at a time and with two, and of its simulation.

One at a time are the local engine's processes; two at once a Ray cluster of this machine alone,
each run with one CPU. The simulation schedules the seconds that the runs themselves took.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.queueing import makespan, makespan_bounds
from peftlab.comparison.engine import Engine
from peftlab.comparison.local import LocalEngine
from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.profile import Profile
from peftlab.comparison.ray.engine import Ray
from peftlab.comparison.run import Silent, compare
from peftlab.comparison.settings import EvaluationConfig
from peftlab.methods import parse
from peftlab.records.record import Record
from peftlab.tasks import Task
from peftlab.training import TrainConfig

METHODS = (
    "lora:rank=2,targets=q+v,lora:rank=4,targets=q+v,bitfit,ia3,last_k:k=1,prompt_tuning:length=5"
)


@dataclass
class Clock(Silent):
    """When the look before the runs was over, and when each run ended."""

    begun: float = 0.0
    ends: list[float] = field(default_factory=list)

    def planned(self, runs: list[Run], profile: Profile, finished: int) -> None:
        self.begun = time.perf_counter()

    def ended(self, run: Run, record: Record) -> None:
        self.ends.append(time.perf_counter())


def plan(steps: int) -> Plan:
    """Six methods on the demo's base, with two seeds."""
    return Plan(
        model="demo",
        task=Task.load("demo", test_limit=20),
        methods=tuple(parse(METHODS)),
        config=TrainConfig(steps=steps, batch_size=8, evaluate_every=steps),
        evaluation=EvaluationConfig(train_rows=20, latency_tokens=0),
        seeds=(0, 1),
    )


@dataclass(frozen=True)
class Timed:
    """Seconds until the first run, until the last has ended, and of each run by itself."""

    start: float
    makespan: float
    runs: list[float]


def timed(plan: Plan, engine: Engine) -> Timed:
    """Make a comparison and take its times: of a run from its folder's first file to its last."""
    with tempfile.TemporaryDirectory() as folder:
        out, clock, begun = Path(folder) / "out", Clock(), time.perf_counter()
        compared = compare(plan, out, clock, engine=engine)
        files = [
            ((kept.folder / "config.json").stat(), (kept.folder / "record.json").stat())
            for kept in compared.runs
        ]
    runs = [last.st_mtime - first.st_mtime for first, last in files]
    return Timed(clock.begun - begun, max(clock.ends) - clock.begun, runs)


def measure(steps: int) -> dict[str, Any]:
    """One at a time, two at once, and what list scheduling makes of the runs' own seconds."""
    os.environ["OMP_NUM_THREADS"] = "1"
    engines: Sequence[tuple[int, Engine]] = ((1, LocalEngine()), (2, Ray("local", cpus=1)))
    points = []
    for machines, engine in engines:
        result = timed(plan(steps), engine)
        low, high = makespan_bounds(result.runs, machines)
        points.append(
            {
                "at_once": machines,
                "start": result.start,
                "measured": result.makespan,
                "simulated": makespan(result.runs, machines),
                "bounds": [low, high],
                "run_seconds": result.runs,
            }
        )
    return {"points": points}
