"""Times that others disturbed; what the cores' counters say is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from peftlab.comparison import finished, local, profile, work
from peftlab.comparison.plan import EvaluationConfig, Plan, Run, SearchConfig
from peftlab.comparison.processes import RunFailed
from peftlab.comparison.run import Compared, Silent, compare
from peftlab.guests import Guest
from peftlab.measure import company, phases
from peftlab.measure.company import Counters
from peftlab.records.figures import named
from peftlab.records.record import NAME, Record, Seconds
from peftlab.report.formats import render
from peftlab.tasks import Task
from peftlab.training import TrainConfig
from tests.comparison.test_comparison import make
from tests.report.made import record as made_record

BUSY, QUIET = 0.3, 0.01
PARTS = set(Seconds.model_fields) - {"step", "total", "train_again", "train_spared"}


class Machine:
    """Runs happen in this process, and others have the share of its cores that is said here."""

    def __init__(self, share: Callable[[str], float | None]) -> None:
        self.share, self.calls, self.at = share, list[str](), 0.0
        self.busy = self.own = 0.0

    def call(self, function: str, *arguments: Any, hear: Any = None) -> Any:
        place, _, name = function.partition(":")
        self.calls.append(name)
        return getattr(import_module(place), name)(lambda *_: None, *arguments)

    def counters(self) -> Counters | None:
        share = self.share(self.calls[-1])
        if share is None:
            return None
        self.at += 100.0
        self.busy += 200.0
        self.own += 200.0 * (1 - share)
        return Counters(self.at, 2, self.busy, self.own)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    def made(share: Callable[[str], float | None]) -> Machine:
        made_machine = Machine(share)
        monkeypatch.setattr(company, "MOST", 0.05)
        monkeypatch.setattr(local, "call", made_machine.call)
        for module in (company, phases):
            monkeypatch.setattr(module, "counters", made_machine.counters)
        return made_machine

    return made


class Told(Silent):
    def __init__(self) -> None:
        self.labels: list[str] = []

    def again(self, runs: list[Run]) -> None:
        self.labels += [run.label for run in runs]


@pytest.fixture
def plan(base: str, task: Task) -> Plan:
    plan = make(base, task, "hard_prompt,lora:rank=2")
    return replace(plan, evaluation=replace(plan.evaluation, latency_tokens=2))


def record_of(compared: Compared, label: str = "lora:rank=2") -> Record:
    return next(record for record in compared.records if record.label == label)


def cells(record: Record) -> dict[str, str]:
    """All that a table says of a run, by title."""
    titles, _, row = render([record], "md", "all").splitlines()
    return dict(zip(titles.split(" | "), row.split(" | "), strict=True))


@pytest.mark.parametrize("share", [QUIET, None])
def test_alone_or_without_counters_nothing_is_measured_again(
    share: float | None, base: str, task: Task, tmp_path: Path, machine: Callable[..., Machine]
) -> None:
    quiet = machine(lambda _: share)
    plan = make(base, task, "lora:rank=2", evaluation=EvaluationConfig(latency_tokens=2))
    record = record_of(compare(plan, tmp_path))
    assert "again" not in quiet.calls and record.seconds.train_again is None
    for value in record.others.model_dump().values():
        assert value == (share if share is None else pytest.approx(share))
    assert not any(text.startswith("≈") for text in cells(record).values())


def test_what_others_disturbed_is_measured_again_at_the_end(
    plan: Plan, tmp_path: Path, machine: Callable[..., Machine]
) -> None:
    busy, told = machine(lambda name: QUIET if name == "again" else BUSY), Told()
    compared = compare(plan, tmp_path, told)
    assert busy.calls[-4:] == ["work", "work", "again", "again"]
    assert told.labels == ["hard_prompt", "lora:rank=2"]  # the former's latency alone
    record = record_of(compared)
    assert record == Record.read(compared.runs[1].folder / NAME)
    assert (record.others.step, record.others.latency) == pytest.approx((QUIET, QUIET))
    assert (record.others.train, record.others.generate) == pytest.approx((BUSY, BUSY))
    assert record.seconds.train_again is not None and record.seconds.train is not None
    assert named("train_seconds").of(record) == record.seconds.train_again
    shown = cells(record)
    assert shown["generation time"].startswith("≈ ")
    for title in ("train time", "per token", "step time"):
        assert not shown[title].startswith("≈")
    assert "nothing is judged" not in compared.verdict


@pytest.mark.slow
def test_where_others_stay_the_figures_are_uncertain_until_they_leave(
    base: str, task: Task, tmp_path: Path, machine: Callable[..., Machine]
) -> None:
    busy = machine(lambda _: BUSY)
    plan = make(base, task, "lora:rank=2", evaluation=EvaluationConfig(latency_tokens=2))
    compared = compare(plan, tmp_path)
    before = record_of(compared)
    assert before.seconds.train_again is None and before.others.step == pytest.approx(BUSY)
    row = render(compared.records, "md").splitlines()[2]
    assert row.count("≈") == 2  # training and latency
    told = (
        "Other programs had up to 30 % of the cores meanwhile, so nothing is judged by training"
        " time and serving latency of lora:rank=2"
    )
    assert told in compared.verdict
    busy.share, busy.calls = (lambda _: QUIET), []
    after = compare(plan, tmp_path)
    assert "work" not in busy.calls and busy.calls[-1] == "again"
    assert "≈" not in render(after.records, "md") and "judged by" not in after.verdict


def test_a_failing_second_measurement_leaves_the_first(
    base: str,
    task: Task,
    tmp_path: Path,
    machine: Callable[..., Machine],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    busy = machine(lambda _: BUSY)

    def failing(function: str, *arguments: Any, hear: Any = None) -> Any:
        if function.endswith(":again"):
            raise RunFailed("its process was ended by SIGKILL")
        return busy.call(function, *arguments)

    monkeypatch.setattr(local, "call", failing)
    record = record_of(compare(make(base, task, "lora:rank=2"), tmp_path))
    assert record.status == "finished" and record.others.step == pytest.approx(BUSY)
    told = "times of lora:rank=2, seed 0, were not measured again: its process was ended by SIGKILL"
    assert told in capsys.readouterr().err


def test_the_time_of_a_guest_and_of_a_search(
    base: str, task: Task, tmp_path: Path, machine: Callable[..., Machine]
) -> None:
    pytest.importorskip("peft")
    guest = Guest.parse("peft:ia3,target_modules=c_attn+,feedforward_modules=c_attn+")
    plan = make(base, task, (guest,), search=SearchConfig(trials=2))
    machine(lambda name: BUSY if name in ("work", "search") else QUIET)
    compared = compare(plan, tmp_path)
    (record,) = compared.records
    assert record.search is not None and record.search.others == pytest.approx(BUSY)
    assert record.others.step == pytest.approx(QUIET) and record.seconds.train_again
    shown = cells(record)
    assert shown["train and search"].startswith("≈ ")  # a search is not made again
    assert not shown["train time"].startswith("≈ ")


def test_old_records_are_not_disturbed() -> None:
    from tests.report.made import record

    assert finished.disturbed(record()) == set()


def test_the_seconds_of_a_run_are_those_of_the_clock(tmp_path: Path) -> None:
    """On the demo, what is named adds up to what one waits."""
    plan = make("demo", Task.load("demo", limit=32, test_limit=4), "lora:rank=2")
    config = TrainConfig(steps=6, batch_size=4, evaluate_every=3)
    plan = replace(plan, config=config, evaluation=EvaluationConfig(latency_tokens=2))
    (run,) = profile.profile(lambda *_: None, plan, tmp_path).runs(plan)
    begun = time.perf_counter()
    record = work.work(lambda *_: None, run, tmp_path)
    waited = time.perf_counter() - begun
    parts = {name: getattr(record.seconds, name) for name in PARTS}
    assert all(value for name, value in parts.items() if name != "forgetting"), parts
    assert sum(parts.values()) == pytest.approx(waited, rel=0.02)
    assert record.seconds.total == pytest.approx(waited, rel=0.02)


def test_a_time_taken_again_shares_nothing_and_is_charged_nothing() -> None:
    record = made_record("lora", seconds=Seconds(train=10.0, train_spared=5.0))
    time_of = named("train_seconds").of
    assert time_of(record) == 15
    again = record.model_copy(update={"seconds": Seconds(train=40, train_spared=5, train_again=14)})
    assert time_of(again) == 14
