"""A comparison within a given time, on a tiny base."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from peftlab.comparison import local, profile, work
from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.processes import Stopped
from peftlab.comparison.resolve import comparison_settings
from peftlab.comparison.run import Silent
from peftlab.comparison.within.calls import more
from peftlab.comparison.within.clock import Clock, OutOfTime
from peftlab.comparison.within.run import compare_within
from peftlab.errors import InputError
from peftlab.methods import parse
from peftlab.records.reading import StoredRun, predictions, read
from peftlab.records.record import Record
from peftlab.report.page import render
from peftlab.tasks import Example, Task
from peftlab.tasks.choices import Choices
from peftlab.training import TrainConfig
from peftlab.verdict.outcome import said, verdict
from peftlab.verdict.timed import Timed
from tests.comparison.test_comparison import make

METHODS = "hard_prompt,lora:rank=2,ia3"


class Watching(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.runs: list[StoredRun] = []

    def stands(self, told: str, runs: list[StoredRun]) -> None:
        self.lines.append(told)
        self.runs = runs


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs happen in this process."""
    made: list[str] = []

    def call(function: str, *arguments: Any, hear: Any = None) -> Any:
        place, _, name = function.partition(":")
        made.append(name)
        return getattr(import_module(place), name)(lambda *_: None, *arguments)

    monkeypatch.setattr(local, "call", call)
    monkeypatch.setattr(local.SharedBase, "works_on", staticmethod(lambda device: False))
    return made


def plan(base: str, task: Task, seconds: float, margin: float = 0.9) -> Plan:
    config = TrainConfig(steps=16, batch_size=4, schedule="warmup_stable_decay")
    return make(base, task, METHODS, config=config, within=seconds, margin=margin)


@pytest.mark.slow
def test_it_ends_with_a_verdict_when_all_is_decided(
    base: str, task: Task, tmp_path: Path, calls: list[str]
) -> None:
    """Scores of a random base are alike, and the margin is wide: all are tied at the first look."""
    watching = Watching()
    asked = replace(plan(base, task, 600), methods=tuple(parse("hard_prompt,lora:rank=2")))
    compared = compare_within(asked, tmp_path, watching)
    timed = Timed.read(tmp_path)
    assert timed is not None and timed.ended == "decided" and timed.margin == 0.9
    assert 8 <= timed.steps <= 16 and set(timed.finalists) <= set(METHODS.split(","))
    assert {one.pair.outcome for one in timed.pairs} == {"tied"}
    seeds = {run.record.seed for run in compared.runs if run.record.label != "hard_prompt"}
    assert seeds >= {1, 2, 3} and 0 not in seeds
    lines = said(verdict(compared.runs))
    assert " is best: " in lines[0] and " tied with " in lines[1]
    assert any(line.startswith("Of those tied take hard_prompt") for line in lines)
    assert " of 10 min are used: every finalist is decided" in lines[-1]
    assert any("lora:rank=2 at a rate of" in line and "loss" in line for line in watching.lines)
    again = read(tmp_path)
    assert len(again.runs) == len(compared.runs), "trials are no runs"
    assert lines[0].split(":")[0] in render(tmp_path, again)
    for run in compared.runs:
        assert run.record.status == "finished" and run.record.train["steps"] in (timed.steps, 16)


@pytest.mark.slow
def test_given_again_with_more_time_it_goes_on(
    base: str, task: Task, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = plan(base, task, 600, margin=1e-9)

    class Stopping(Watching):
        def stands(self, told: str, runs: list[StoredRun]) -> None:
            super().stands(told, runs)
            if len(runs) == 3:
                raise Stopped

    with pytest.raises(Stopped):
        compare_within(short, tmp_path, Stopping())
    before = Timed.read(tmp_path)
    assert before is not None and before.ended == "" and before.target is not None
    trials, begun = calls.count("trial"), calls.count("work")

    class Enough(Watching):
        def stands(self, told: str, runs: list[StoredRun]) -> None:
            super().stands(told, runs)
            if len(runs) >= 8:
                raise Stopped

    with pytest.raises(Stopped):
        compare_within(replace(short, within=900), tmp_path, Enough())
    after = Timed.read(tmp_path)
    assert after is not None and after.used > before.used
    assert calls.count("trial") == trials, "what was screened is not screened again"
    assert calls.count("work") > begun
    assert (after.finalists, after.rates, after.target, after.steps) == (
        before.finalists, before.rates, before.target, before.steps,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"margin is 0\.5 and was 1e-09 when this verdict began"):
        compare_within(replace(short, within=900, margin=0.5), tmp_path)
    with pytest.raises(InputError, match=r"s of --within 1 s are used already: give more"):
        compare_within(replace(short, within=1.0), tmp_path)
    longer = replace(short, within=900, config=replace(short.config, steps=40))
    with pytest.raises(InputError, match="--steps is 40 and was 16 when this verdict began"):
        compare_within(longer, tmp_path)
    alone = replace(short, within=900, methods=tuple(parse("ia3,bitfit")))
    with pytest.raises(InputError, match="fewer than two are among --methods"):
        compare_within(alone, tmp_path)


def in_parts(base: str, task: Task, out: Path) -> tuple[Run, Record, Record]:
    """A run, its record with all test examples read at once, and with five before the others."""
    asked = make(base, task, "lora:rank=2", predict=False)
    (run,) = profile.profile(lambda *_: None, asked, out).runs(asked)
    whole = work.work(lambda *_: None, run, out / "whole")
    some = replace(run, task=replace(run.task, test=run.task.test[:5]))
    work.work(lambda *_: None, some, out / "parts")
    return run, whole, more(lambda *_: None, run, out / "parts")


def test_more_test_examples_are_read_with_the_adapter_that_is_there(
    base: str, task: Task, tmp_path: Path
) -> None:
    run, whole, record = in_parts(base, task, tmp_path)
    rows, expected = (predictions(tmp_path / name / run.folder) for name in ("parts", "whole"))
    assert [row["index"] for row in rows] == list(range(len(task.test))) and len(rows) > 5
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in expected]
    assert record.scores == pytest.approx(whole.scores)
    assert record.loss.test == pytest.approx(whole.loss.test, rel=1e-5)
    assert record.loss.test_error == pytest.approx(whole.loss.test_error, rel=1e-4)
    assert record.task.test_rows == len(task.test) == whole.task.test_rows
    assert record.config_hash == whole.config_hash, "how much was read decides no run"


def test_more_of_a_task_of_choices_is_read_and_scored_as_all_at_once(
    base: str, task: Task, tmp_path: Path
) -> None:
    metrics = ("accuracy", "acc_norm", "macro_f1", "calibration_error")

    def labelled(split: str) -> list[Example]:
        rows = enumerate(task.split(split))
        return [replace(row, targets=(("a", "b c")[i % 2],)) for i, row in rows]

    chosen = replace(
        task,
        train=labelled("train"),
        validation=labelled("validation"),
        test=labelled("test"),
        choices=Choices(("a", "b c")),
        metrics=metrics,
        subsets={"first": (0, 1, 2), "late": (len(task.test) - 1,)},
    )
    _, whole, record = in_parts(base, chosen, tmp_path)
    assert list(record.scores) == list(metrics)
    assert record.scores == pytest.approx(whole.scores, abs=1e-6)
    assert set(record.subsets) == {"first", "late"}
    for name, scores in record.subsets.items():
        assert scores == pytest.approx(whole.subsets[name], abs=1e-6)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_the_time_ends_what_still_runs(handler: Any) -> None:
    """Also in a process that ignores Ctrl-C, as those do that a script starts with `&`."""
    before = signal.signal(signal.SIGINT, handler)
    clock = Clock(0.2)
    begun = time.monotonic()
    try:
        with pytest.raises(OutOfTime), clock.ending():
            if handler is signal.SIG_IGN:
                signal.raise_signal(signal.SIGINT)  # which it goes on to ignore
            while time.monotonic() - begun < 5:
                time.sleep(0.05)
        assert time.monotonic() - begun < 2 and signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interruption_in_time_is_one() -> None:
    with pytest.raises(KeyboardInterrupt), Clock(100).ending():
        raise KeyboardInterrupt
    with Clock(100).ending():
        pass


def test_a_clock_counts_what_was_used_before() -> None:
    clock = Clock(100, before=40)
    assert 59 < clock.left() <= 60 and 40 <= clock.used < 41


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"within": "1h", "seeds": 3}, "leave seeds out"),
        ({"within": "1h", "search": 4}, "leave search out"),
        ({"within": "1h", "budget": "tokens=1e6"}, "leave budget out"),
        ({"within": "1h", "learning_rate": 0.1}, "leave learning_rate out"),
        ({"within": "1h", "schedule": "cosine"}, "under the schedule warmup_stable_decay"),
        ({"within": "soon"}, "90s, 10m or 2h"),
        ({"margin": 0.1}, "margin belongs to within"),
    ],
)
def test_what_contradicts_a_given_time_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        comparison_settings(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": tuple(parse("lora"))}, "two at least were expected"),
        ({"validation": 0}, "no validation rows"),
        ({"test": 3}, "the task has 3 test examples; a verdict needs 5"),
        ({"methods": tuple(parse("lora:targets=nothing,hard_prompt"))}, "fewer than two methods"),
    ],
)
def test_what_no_verdict_could_come_of_is_refused_at_once(
    change: dict[str, Any], message: str, base: str, task: Task, tmp_path: Path, calls: list[str]
) -> None:
    for split in ("validation", "test"):
        if split in change:
            task = replace(task, **{split: getattr(task, split)[: change.pop(split)]})
    with pytest.raises(InputError, match=message):
        compare_within(replace(plan(base, task, 600), **change), tmp_path)
    assert "trial" not in calls


def test_what_is_printed_as_a_file_can_be_read_again() -> None:
    values = comparison_settings(within="10m", methods="lora,ia3", margin=0.02).values()
    assert (
        comparison_settings(**{k: v for k, v in values.items() if v is not None}).what.margin
        == 0.02
    )


def test_full_within_a_time_is_every_method() -> None:
    settings = comparison_settings(within="10m", full=True)
    made = settings.plan()
    assert len(made.methods) > 10 and made.within == 600 and made.seeds == (0,)
    assert not made.search.trials and not made.sampling.test
