"""What `torchrun` starts in the tests of several processes: trains jobs one after the other.

`python -m tests.train.process_worker JOBS` with a JSON list of `Job`; the first process writes what
came out of each into the job's folder.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from peftlab import processes
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.sharding import shard
from peftlab.methods import parse_one
from peftlab.tasks import Task
from peftlab.train import Interrupted, TrainConfig, Trained, train
from peftlab.train.display import Display, silent
from tests.laws import world
from tests.models import tiny


@dataclass(frozen=True)
class Job:
    """One training. `stop_after`: Ctrl-C after so many steps; `rows`: of the training split."""

    case: str
    folder: str
    family: str = "llama"
    sharded: bool = False
    stop_after: int | None = None
    rows: int | None = None
    config: dict[str, Any] = field(default_factory=dict)


@cache
def base(family: str, sharded: bool) -> FrozenLM:
    """The tiny model that the laws run on, split over the processes where asked."""
    if not sharded:
        return world.model(family)
    own = shard(tiny(family), processes.join("cpu"))
    return FrozenLM(own, world.tokenizer(), family)


def work(job: Job) -> Trained | None:
    """Train; None where the job was to be stopped."""
    task: Task = world.task()
    task = replace(task, train=task.train[: job.rows])
    given: dict[str, Any] = {"folder": Path(job.folder), "display": _stopping(job.stop_after)}
    config = TrainConfig(**job.config)
    try:
        return train(base(job.family, job.sharded), parse_one(job.case), task, config, **given)
    except Interrupted:
        return None


def _stopping(after: int | None) -> Display:
    from contextlib import contextmanager
    from signal import SIGTERM

    if after is None:
        return silent

    @contextmanager
    def display(*_: object) -> Any:
        yield lambda step, *_: os.kill(os.getpid(), SIGTERM) if step == after else None

    return display


def told(trained: Trained) -> dict[str, Any]:
    """What must not depend on the number of processes."""
    return {
        "losses": trained.losses,
        "validation_loss": trained.validation_loss,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "truncated": trained.truncated,
        "text": dict(trained.adaptation.state.text),
    }


def main() -> None:
    """Do the jobs."""
    torch.set_num_threads(1)
    here = processes.join("cpu")
    for job in (Job(**each) for each in json.loads(sys.argv[1])):
        trained = work(job)
        if trained is not None and here.is_first:
            trained.adaptation.save(Path(job.folder) / "adapter")
            (Path(job.folder) / "told.json").write_text(json.dumps(told(trained)))
    processes.leave()


def encoded(jobs: list[Job]) -> str:
    """Jobs as the worker takes them."""
    return json.dumps([asdict(job) for job in jobs])


if __name__ == "__main__":
    main()
