"""How much a comparison reads: by rule, the same for every method, and what it had before."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab.comparison import samples
from peftlab.comparison.plan import Plan, Run, Samples
from peftlab.comparison.profile import profile
from peftlab.comparison.resolve import resolved
from peftlab.comparison.samples import Costs, decided, kept
from peftlab.comparison.settings import WHOLE, EvaluationConfig, SamplingConfig
from peftlab.comparison.work import work
from peftlab.methods import parse
from peftlab.records import folders
from peftlab.records.record import Record
from peftlab.records.samples import note
from peftlab.report.table import as_markdown
from peftlab.tasks import Example, Task
from peftlab.tasks.sample import drawn, sampled
from peftlab.training import TrainConfig
from tests.comparison.conftest import rows
from tests.comparison.test_comparison import make

AUTO = SamplingConfig()


def _deaf(*_: Any) -> None: ...


@pytest.fixture
def large(task: Task) -> Task:
    """With so many rows that reading all of them would cost more than a short training."""
    made = [Example(str(r["source"]), tuple(r["targets"])) for r in rows(120, 100)]  # type: ignore[arg-type]
    return replace(task, validation=made[:60], test=made[60:], max_new_tokens=4)


@pytest.fixture
def plan(base: str, large: Task, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(samples, "FREE", 0.0)  # a tiny base would read all in passing
    config = TrainConfig(steps=4, batch_size=4, evaluate_every=2)
    return make(base, large, "hard_prompt,lora:rank=2,prompt_tuning:length=3", config=config,
                sampling=AUTO)  # fmt: skip


def test_the_rule(plan: Plan) -> None:
    """Each part's share, divided by what a row of it costs; never under eight rows."""
    costs = Costs(training=300_000, free=0, row=100, example=400, validations=5)
    found = decided(plan, plan.task, costs)
    # A third is 100,000: 20 % of it for 5 validations, 10 % for the training rows, 40 % for test.
    assert found == Samples(train=None, validation=40, test=None, drawn=True)
    assert decided(plan, plan.task, replace(costs, example=1000)).test == 40
    assert decided(plan, plan.task, replace(costs, training=1000)) == Samples(
        train=None, validation=8, test=8, drawn=True
    ), "five training pairs were asked for, which is under the least already"
    few = replace(plan, evaluation=EvaluationConfig(train_rows=20))
    assert decided(few, plan.task, replace(costs, training=3000)).train == 8
    all_read = decided(plan, plan.task, replace(costs, training=3000, free=1e9))
    assert all_read == Samples(drawn=True), "but for the training pairs, of which five were asked"
    every = replace(plan, evaluation=EvaluationConfig(train_rows=24))
    assert decided(every, plan.task, replace(costs, free=1e9)) == Samples()


def test_what_somebody_has_said_is_not_sampled(plan: Plan) -> None:
    costs = Costs(training=10_000, free=0, row=100, example=400, validations=5)
    assert decided(replace(plan, sampling=WHOLE), plan.task, costs) == Samples(drawn=True)
    said = replace(plan, sampling=SamplingConfig(test=False))
    assert decided(said, plan.task, costs).test is None
    said = replace(plan, config=replace(plan.config, validation_limit=50))
    assert decided(said, plan.task, costs).validation is None
    more = replace(plan, sampling=SamplingConfig(share=1.0))
    assert decided(more, plan.task, costs).validation == 8
    assert decided(more, plan.task, replace(costs, training=100_000)).validation == 40


def test_options_say_what_is_sampled() -> None:
    def sampling(**given: Any) -> SamplingConfig:
        return resolved({"task": "demo", "limit": 8, **given}).sampling

    assert sampling() == SamplingConfig(share=None, test=True)
    assert sampling(test_limit=4, evaluation_share=0.5) == SamplingConfig(share=0.5, test=False)
    loaded = (Task.load("demo", limit=8, test_limit=n) for n in (4, None))
    said = [resolved({"task": task}).sampling.test for task in loaded]
    assert said == [False, True], "as well where the task was loaded with it"
    assert resolved({"test_limit": 4, "limit": 8, "evaluation_share": 0}).plan().sampling.share == 0


def test_a_search_validates_as_often_as_its_trials_do(plan: Plan) -> None:
    searched = replace(plan, search=replace(plan.search, trials=3, share=0.5))

    def count(plan: Plan, **budget: Any) -> float:
        return samples._validations(replace(plan, config=TrainConfig(**budget)), 300, 24)

    assert count(plan, steps=300) == count(plan, tokens=10**6) == 6
    assert count(searched, steps=300) == 10, "five in half of the steps"
    assert count(searched, tokens=10**6) == 30, "every ten steps of usual size"
    assert count(plan, seconds=60.0) == 10 and count(searched, seconds=60.0) == 20


def test_samples_are_nested_and_keep_their_order(large: Task) -> None:
    subsets = {"late": tuple(range(40, 60))}
    whole = replace(large, subsets=subsets)
    small, larger = (sampled(whole, validation=n, test=n) for n in (10, 20))
    places = [large.test.index(one) for one in small.test]
    assert places == sorted(places) == drawn(60, 10) and places != list(range(10))
    assert {*small.test} < {*larger.test} and {*small.validation} < {*larger.validation}
    assert small.source.fingerprint == large.source.fingerprint
    late = [small.test[i] for i in small.subsets["late"]]
    assert late == [one for one in small.test if large.test.index(one) >= 40]
    assert sampled(large, test=60).test is large.test
    state = random.getstate()
    drawn(60, 10)
    assert random.getstate() == state


def test_pairs_of_validation_are_drawn_one_by_one(large: Task) -> None:
    several = [replace(one, targets=(*one.targets, "other")) for one in large.validation]
    task = replace(large, validation=several)
    assert len(sampled(task, validation=31).pairs("validation")) == 31


def _runs(plan: Plan, out: Path) -> list[Run]:
    return profile(_deaf, plan, out).runs(plan)


def test_every_method_has_the_same_rows_in_the_same_order(plan: Plan, tmp_path: Path) -> None:
    runs = _runs(plan, tmp_path)
    assert runs[0].samples.chosen().keys() == {"validation", "test", "drawn"}
    records = [work(_deaf, run, tmp_path) for run in runs]
    texts = []
    for run in runs:
        lines = (tmp_path / run.folder / folders.PREDICTIONS).read_text().splitlines()
        texts.append([json.loads(line)["source"] for line in lines])
    assert texts[0] == texts[1] == texts[2] and len(texts[0]) == runs[0].samples.test
    assert [*texts[0]] == [plan.task.test[i].source for i in drawn(60, runs[0].samples.test)]
    for record, run in zip(records, runs, strict=True):
        assert record.samples["test"].rows == record.task.test_rows == run.samples.test
        assert record.samples["validation"].of == 60
        assert record.loss.validation_error and record.loss.test_error and record.loss.train_error
    assert Record.read(tmp_path / runs[1].folder / "record.json") == records[1]
    said = note(records)
    assert f"{run.samples.test} of 60 test examples" in said and "validation ±" in said
    assert "60 test examples" in as_markdown(records)


def test_the_size_hangs_on_settings_alone(plan: Plan, tmp_path: Path) -> None:
    one, two = (profile(_deaf, plan, tmp_path).samples for _ in range(2))
    other = replace(plan, methods=plan.methods[:1], seeds=(3, 4))
    assert one == two == profile(_deaf, other, tmp_path).samples
    longer = replace(plan, config=replace(plan.config, steps=400))
    assert profile(_deaf, longer, tmp_path).samples.test is None


def test_a_comparison_goes_on_with_what_it_had(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of before there were samples, or of another rule, are known again."""
    whole = [replace(r, samples=Samples()) for r in _runs(replace(plan, sampling=WHOLE), tmp_path)]
    assert "samples" not in whole[1].resolved()
    record = work(_deaf, whole[1], tmp_path)
    assert record.samples == {} and record.task.test_rows == 60
    again = _runs(plan, tmp_path)
    assert [run.config_hash for run in again] == [run.config_hash for run in whole]
    joined = replace(plan, methods=parse("ia3,lora:rank=1"), seeds=(7,))
    assert all(run.samples == Samples() for run in _runs(joined, tmp_path)), "of other methods too"
    asked = replace(plan, sampling=SamplingConfig(share=1 / 3))
    assert _runs(asked, tmp_path)[1].config_hash != whole[1].config_hash
    (known, *_) = _runs(replace(plan, sampling=WHOLE), tmp_path)
    assert known.config_hash == whole[0].config_hash, "which training pairs they read is kept"


def test_the_training_loss_is_of_drawn_pairs(plan: Plan, tmp_path: Path) -> None:
    """Rows often stand in some order; the first hundred are then of one kind."""
    _, lora, _ = _runs(plan, tmp_path)
    count = lora.evaluation.train_rows
    record = work(_deaf, lora, tmp_path)
    places = drawn(24, count)
    assert lora.samples.drawn and places != list(range(count))
    train = [plan.task.train[i] for i in places]
    by_hand = _host_of(replace(lora, task=replace(lora.task, train=train)), tmp_path)
    assert record.loss.train == by_hand.loss("train").loss
    before = replace(lora, samples=replace(lora.samples, drawn=False))
    first = _host_of(before, tmp_path / "elsewhere", tmp_path / lora.folder)
    assert first.loss("train", count).loss != record.loss.train, "as of runs before"
    assert before.config_hash != lora.config_hash


def test_kept_prefers_what_was_decided() -> None:
    mine, other = Samples(test=9), Samples(validation=4)
    settings = [{"samples": other.chosen()}, {"samples": mine.chosen()}]
    assert kept(mine, settings) == mine
    assert kept(mine, settings[:1]) == other
    assert kept(mine, [{}]) == Samples() and kept(mine, []) == mine
    now, then = replace(mine, drawn=True), [{"samples": mine.chosen()}]
    assert kept(now, then) == kept(now, then, share_is_given=True) == mine
    assert kept(now, [{}], share_is_given=True) == now == kept(now, [{"samples": now.chosen()}])


def test_the_final_validation_is_not_read_again(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftlab.comparison import hosts

    read = []
    plain = hosts.Host.loss

    def listening(self: Any, split: str, limit: int | None = None) -> Any:
        read.append(split)
        return plain(self, split, limit)

    monkeypatch.setattr(hosts.Host, "loss", listening)
    bare, lora, _ = _runs(plan, tmp_path)
    work(_deaf, bare, tmp_path)
    assert read == ["train", "validation"]
    record = work(_deaf, lora, tmp_path)
    assert read == ["train", "validation", "train"]
    found = plain(_host_of(lora, tmp_path), "validation")
    assert record.loss.validation == pytest.approx(found.loss, abs=1e-5)
    assert record.loss.validation_error == pytest.approx(found.error, rel=1e-3)


def _host_of(run: Run, out: Path, folder: Path | None = None) -> Any:
    from peftlab.comparison.hosts import host

    found = host(run)
    found.take_up((folder or out / run.folder) / folders.ADAPTER)
    return found
