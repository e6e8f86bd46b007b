"""Hashes, labels and folders of runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftlab.comparison.label import slug
from peftlab.comparison.plan import Base, Plan, runs_of
from peftlab.methods import parse_one
from peftlab.tasks import Task

BASE = Base(name="demo", fingerprint="xxh3-128:0", parameters=100, device="cpu")


@pytest.mark.parametrize(
    "spec",
    ["lora", "lora:rank=4,targets=q+k", "hard_prompt:instruction=task", "prefix_tuning+bottleneck"],
)
def test_a_label_can_be_typed_again(spec: str) -> None:
    assert parse_one(spec).label == spec
    assert parse_one(parse_one(spec).label) == parse_one(spec)


def test_a_slug_is_a_folder_name() -> None:
    assert slug("a/b c: d") == "a-b-c-d"
    assert len(slug("x" * 300)) < 60


def test_the_hash_is_of_all_that_decides(task: Task) -> None:
    plan = Plan(model="demo", task=task, methods=(parse_one("lora"),))

    def first(plan: Plan = plan, base: Base = BASE, task: Task = task) -> str:
        return runs_of(plan, base, task)[0].config_hash

    assert first() == first()
    same = [
        replace(plan, config=replace(plan.config, checkpoint_seconds=1.0)),
        replace(plan, config=replace(plan.config, learning_rate=plan.methods[0].learning_rate)),
    ]
    assert {first(p) for p in same} == {first()}
    other = [
        first(replace(plan, methods=(parse_one("lora:rank=4"),))),
        first(replace(plan, config=replace(plan.config, steps=7))),
        first(replace(plan, seeds=(1,))),
        first(replace(plan, evaluation=replace(plan.evaluation, train_rows=3))),
        first(base=replace(BASE, fingerprint="xxh3-128:1")),
        first(task=replace(task, template=replace(task.template, source_tokens=5))),
        first(task=replace(task, source=replace(task.source, fingerprint="f"))),
        first(task=replace(task, metrics=("bleu",))),
    ]
    assert len({first(), *other}) == len(other) + 1


def test_seeds_share_a_folder_and_methods_do_not(task: Task) -> None:
    methods = (parse_one("lora"), parse_one("lora:rank=4"))
    runs = runs_of(Plan(model="demo", task=task, methods=methods, seeds=(0, 1)), BASE, task)
    assert [(r.label, r.seed) for r in runs] == [
        ("lora", 0), ("lora:rank=4", 0), ("lora", 1), ("lora:rank=4", 1),
    ]  # fmt: skip
    assert runs[0].folder.parent == runs[2].folder.parent != runs[1].folder.parent
    assert runs[0].config.seed == 0 and runs[2].config.seed == 1
    assert len({run.config_hash for run in runs}) == 4


def test_a_method_in_which_nothing_is_random_runs_once(task: Task) -> None:
    names = ("hard_prompt", "hard_prompt:shots=2", "hard_prompt:instruction=Say it.+ia3", "bitfit")
    plan = Plan(model="demo", task=task, methods=tuple(map(parse_one, names)), seeds=(3, 1))

    def seeds(task: Task) -> list[int]:
        return [run.seed for run in runs_of(replace(plan, task=task), BASE, task)]

    assert seeds(task) == [3, 3, 3, 3, 1, 1, 1]
    drawn = replace(task, decoding=replace(task.decoding, sample=True))
    assert seeds(drawn) == [3, 3, 3, 3, 1, 1, 1, 1], "replies are drawn by the seed"
