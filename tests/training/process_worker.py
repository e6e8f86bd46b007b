"""What `torchrun` starts in the tests of several processes: trains jobs one after the other.

`python -m tests.training.process_worker JOBS` with a JSON list of `Job`; the first process writes
what came out of each into the job's folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import torch

from peftlab import processes
from peftlab.errors import PeftlabError
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.sharding import shard
from peftlab.methods import parse_one
from peftlab.training import Interrupted, TrainConfig, Trained, train
from peftlab.training.display import Display, silent
from tests.laws import world
from tests.models import tiny


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        stop_after: SIGTERM reaches the first process after so many steps.
        ends: how the second process ends after its second validation: dies or hangs.
        unlike: what the second process has different: seed, rows, family or folder.
        refused: an error is expected, and every process writes it to `<folder>.<process>.error`.
    """

    case: str
    folder: str
    family: str = "llama"
    sharded: bool = False
    stop_after: int | None = None
    ends: str | None = None
    unlike: str | None = None
    refused: bool = False
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
    here = processes.join("cpu")
    task, config = world.task(), TrainConfig(**job.config)
    folder, family = Path(job.folder), job.family
    if job.unlike == "folder":
        folder = Path(f"{job.folder}{here.index}")
    elif job.unlike is not None and here.index == 1:
        config = replace(config, seed=1) if job.unlike == "seed" else config
        source = replace(task.source, fingerprint="of other rows")
        task = replace(task, source=source) if job.unlike == "rows" else task
        family = "gpt2" if job.unlike == "family" else family
    given: dict[str, Any] = {
        "folder": folder,
        "display": _stopping(job.stop_after),
        "validated": _ending(job.ends) if here.index == 1 else None,
    }
    try:
        return train(base(family, job.sharded), parse_one(job.case), task, config, **given)
    except Interrupted:
        return None


def _ending(how: str | None) -> Any:
    def validated(step: int, _: float) -> bool:
        if step >= 2 and how == "dies":
            os.kill(os.getpid(), SIGKILL)
        if step >= 2 and how == "hangs":
            time.sleep(3600)
        return False

    return validated


def _stopping(after: int | None) -> Display:
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
    here = processes.join("cpu", float(os.environ.get("WORKER_PATIENCE", "600")))
    for job in (Job(**each) for each in json.loads(sys.argv[1])):
        try:
            trained = work(job)
        except PeftlabError as error:
            if not job.refused:
                raise
            Path(f"{job.folder}.{here.index}.error").write_text(str(error))
            continue
        if trained is not None and here.is_first:
            trained.adaptation.save(Path(job.folder) / "adapter")
            (Path(job.folder) / "told.json").write_text(json.dumps(told(trained)))
    processes.leave()


def encoded(jobs: list[Job]) -> str:
    """Jobs as the worker takes them."""
    return json.dumps([asdict(job) for job in jobs])


if __name__ == "__main__":
    main()
