"""A comparison's runs report to trackers from their own processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from peftlab.comparison.plan import Plan
from peftlab.comparison.run import compare
from peftlab.comparison.settings import EvaluationConfig
from peftlab.methods import parse
from peftlab.records.reading import metrics
from peftlab.tasks import Task
from peftlab.training import TrainConfig
from tests.comparison.test_comparison import Counting


@pytest.mark.slow
def test_curves_and_results_reach_tensorboard(base: str, task: Task, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plan = Plan(
        model=base,
        task=task,
        methods=tuple(parse("lora:rank=2")),
        config=TrainConfig(steps=3, batch_size=4, evaluate_every=2),
        evaluation=EvaluationConfig(train_rows=5, latency_tokens=0),
        track=("tensorboard",),
    )
    (run,) = compare(plan, tmp_path / "out").runs
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()

    def curve(tag: str) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in events.Scalars(tag)]

    steps = [(line["step"], line["loss"]) for line in metrics(run.folder) if "loss" in line]
    assert curve("loss") == [(step, pytest.approx(loss)) for step, loss in steps]
    assert curve("test/rougeL") == [(3, pytest.approx(run.record.scores["rougeL"]))]
    assert curve("parameters/trainable") == [(3, run.record.parameters.trainable)]

    watcher = Counting()
    compare(replace(plan, track=()), tmp_path / "out", watcher)
    assert watcher.made == [], "trackers do not make it another run"
