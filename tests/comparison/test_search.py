"""The search for a rate: chosen by validation alone, ended early, continued, paid for and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab.comparison import search as search_module
from peftlab.comparison.plan import Base, Plan, Run, runs_of
from peftlab.comparison.run import compare
from peftlab.comparison.search import LADDER, search
from peftlab.comparison.settings import EvaluationConfig, SearchConfig
from peftlab.comparison.trials import trial_config
from peftlab.errors import InputError
from peftlab.frozen import named as bases
from peftlab.frozen.model import FrozenLM
from peftlab.methods import parse
from peftlab.records.reading import read
from peftlab.records.record import Record
from peftlab.tasks import Task
from peftlab.training import TrainConfig
from tests.comparison.test_comparison import Counting


@pytest.fixture(scope="module")
def about(base: str) -> Base:
    model = bases.load(base)
    return Base(name=base, fingerprint=model.fingerprint, parameters=model.shape.size, device="cpu")


def run_of(about: Base, task: Task, method: str = "ia3", **changes: Any) -> Run:
    plan = Plan(
        model=about.name,
        task=task,
        methods=tuple(parse(method)),
        config=replace(TrainConfig(steps=20, batch_size=2, evaluate_every=50), **changes),
        search=SearchConfig(trials=5),
    )
    (run,) = runs_of(plan, about, task)
    return run


def test_the_rate_with_the_lowest_validation_loss(about: Base, task: Task, tmp_path: Path) -> None:
    run, said = run_of(about, replace(task, test=())), list[tuple[Any, ...]]()
    searched = search(lambda *words: said.append(words), run, tmp_path)
    own = run.method.learning_rate
    assert [one.rate for one in searched.trials] == pytest.approx([own * x for x in LADDER])
    ended = [one for one in searched.trials if one.status == "finished"]
    assert searched.rate == min(ended, key=lambda one: one.loss or 9e9).rate
    assert {one.status for one in searched.trials} <= {"finished", "pruned"}
    assert all(one.steps == 10 for one in ended), "half of a run's 20"
    records = [Record.read(p) for p in sorted(tmp_path.glob("*-search/trial-*/record.json"))]
    assert [r.trial for r in records] == [0, 1, 2, 3, 4]
    for record in records:
        assert record.scores == {} and record.loss.test is None and record.latency is None
    spent = [r.progress for r in records if r.progress]
    assert searched.tokens == sum((p.forward_tokens or 0) + (p.validated or 0) for p in spent) > 0
    assert searched.seconds == pytest.approx(
        sum((r.seconds.train or 0) + (r.seconds.evaluate or 0) for r in records)
    )
    assert [words[1] for words in said if words[0] == "trial"] == [1, 2, 3, 4, 5]
    said.clear()
    assert search(lambda *words: said.append(words), run, tmp_path) == searched
    assert not any(words[0] == "trial" for words in said), "nothing is tried again"


def test_trials_that_do_worse_are_ended_and_those_that_diverge_are_named(
    about: Base, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "LADDER", (1.0, 1e-4, 1e25))
    monkeypatch.setattr(search_module, "_WIDEST", 1e30)
    run = replace(run_of(about, task, "full"), search=SearchConfig(trials=3))
    searched = search(lambda *_: None, run, tmp_path)
    assert [one.status for one in searched.trials] == ["finished", "pruned", "failed"]
    assert searched.trials[1].steps < 10 and searched.rate == run.config.learning_rate
    (path,) = tmp_path.glob("*-search/trial-2/record.json")
    failed = Record.read(path)
    assert failed.diverged_at is not None and f"step {failed.diverged_at}" in str(failed.error)
    assert failed.progress is not None and failed.progress.steps < 10
    for record in tmp_path.glob("*-search/trial-1/record.json"):
        record.unlink()  # the process was killed before it had written it
    again = search(lambda *_: None, run, tmp_path)
    assert [one.status for one in again.trials] == ["finished", "pruned", "failed"]


def test_no_rate_that_trains_is_one_clear_error(
    about: Base, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "LADDER", (1e25, 1e26))
    monkeypatch.setattr(search_module, "_WIDEST", 1e30)
    run = replace(run_of(about, task, "full"), search=SearchConfig(trials=2))
    with pytest.raises(InputError, match=r"full: none of 2 rates .* came to a finite loss"):
        search(lambda *_: None, run, tmp_path)


def test_what_a_trial_may_use(about: Base, task: Task) -> None:
    def shorter_than(run: Run) -> TrainConfig:
        return trial_config(run.config, run.search.share, len(run.task.pairs("train")))

    shorter = shorter_than(run_of(about, task))
    assert (shorter.steps, shorter.evaluate_every, shorter.patience) == (10, 2, 0)
    tokens = shorter_than(run_of(about, task, tokens=5001))
    assert (tokens.tokens, tokens.evaluate_every) == (2500, 10)
    assert shorter_than(run_of(about, task, seconds=3.0)).seconds == 1.5
    assert shorter_than(run_of(about, task, epochs=2.0)).epochs == 1.0


def test_rates_and_searches_exclude_each_other(about: Base, task: Task) -> None:
    with pytest.raises(InputError, match="a learning rate and a search"):
        Plan(
            model=about.name,
            task=task,
            methods=tuple(parse("lora")),
            config=TrainConfig(learning_rate=1e-3),
            search=SearchConfig(trials=2),
        )
    with pytest.raises(InputError, match="share"):
        SearchConfig(trials=2, share=0.0)


@pytest.mark.slow
def test_a_comparison_with_a_search_and_a_budget_of_tokens(
    base: str, task: Task, tmp_path: Path
) -> None:
    plan = Plan(
        model=base,
        task=task,
        methods=tuple(parse("hard_prompt,ia3")),
        config=TrainConfig(tokens=900, batch_size=2, evaluate_every=4),
        evaluation=EvaluationConfig(train_rows=5, latency_tokens=0),
        search=SearchConfig(trials=2),
        seeds=(0, 1),
    )
    watcher = Counting()
    compared = compare(plan, tmp_path / "out", watcher)
    assert [r.status for r in compared.records] == ["finished"] * 3  # a prompt runs once
    asked, first, second = compared.records
    assert asked.search is None and first.search == second.search is not None
    assert first.train["learning_rate"] == first.search.rate == second.train["learning_rate"]
    assert first.budget == asked.budget is not None
    assert (first.budget.kind, first.budget.amount, first.budget.trials) == ("tokens", 900, 2)
    assert first.progress is not None and first.progress.forward_tokens is not None
    assert 450 < first.progress.forward_tokens <= 1000
    own = plan.methods[1].rate_on(FrozenLM.load(base).scale)
    assert ("trial", 1, 2, pytest.approx(own)) in watcher.words
    assert len(read(tmp_path / "out").runs) == 3, "trials are no runs"
    watcher = Counting()
    again = compare(plan, tmp_path / "out", watcher)
    assert again.records == compared.records and watcher.made == []
    (path,) = (tmp_path / "out").glob("*-search/search.json")
    assert json.loads(path.read_text())["rate"] == first.search.rate
