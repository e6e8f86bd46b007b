"""A few of the moments that `bench.interruptions` tries, and that it sees what is wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.interruption_jobs import EXPORTS, TRAININGS, Fault
from bench.interruptions import (
    Bench,
    Ended,
    damaged,
    faults,
    kills,
    leftovers,
    said_wrong,
    small_disk,
)

GOOD = "Error: a/b cannot be written: the disk is full. What is finished is kept: make room\n"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("interruptions"))
    yield made
    assert made.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("job", ["train last_k", "train a guest"])
def test_a_killed_training_continues(bench: Bench, job: str) -> None:
    bench.kill(job, random.Random(0))
    assert bench.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["limit", "killed"])
@pytest.mark.parametrize(("job", "at"), [("train last_k", 7), ("train a guest", 18)])
def test_a_write_that_fails_loses_nothing(bench: Bench, job: str, at: int, kind: str) -> None:
    bench.fail(job, Fault(kind, at, 400))
    assert bench.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kills", "limit", "killed", "disk"])
def test_nothing_is_lost(kind: str, tmp_path: Path) -> None:
    bench, rng = Bench(tmp_path), random.Random(0)
    if kind == "kills":
        kills(bench, [*TRAININGS], 30, rng)
        assert bench.problems == [] and bench.counts["killed"] == 30
        return
    bench.prepare()
    jobs = [*TRAININGS, "compare", *EXPORTS]
    if kind == "disk":
        with small_disk() as bench.disk:
            faults(bench, kind, jobs, 40, rng)
    else:
        faults(bench, kind, jobs, 40, rng)
    assert bench.problems == [] and bench.counts["killed" if kind == "killed" else "failed"] > 20


def test_wrong_words_are_seen() -> None:
    assert said_wrong(Ended(2, GOOD)) == []
    for code, said in (
        (1, GOOD),
        (2, "Error: something else"),
        (2, GOOD + GOOD),
        (2, GOOD + "Traceback (most recent call last)"),
    ):
        assert said_wrong(Ended(code, said))


def test_damage_and_what_is_left_are_seen(tmp_path: Path) -> None:
    for name in ("a.json", "b.jsonl", "c.safetensors", "d.html"):
        (tmp_path / name).write_text('{"a": ')
    (tmp_path / ".writing-1-2").mkdir()
    (tmp_path / ".lock").write_text("")
    assert len(damaged(tmp_path)) == 4
    assert leftovers(tmp_path) == [".writing-1-2 is left"]
