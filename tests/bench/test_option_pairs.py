"""What the run over all pairs of option and value tells apart, and some of these pairs."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from bench import option_pairs
from bench.option_pairs import BEGUN, GOOD, Pair, all_of, attempt, judged, main, pairs, table

PAIR = Pair("methods", "--model", "x")


def _raises(*_: object) -> int:
    raise ValueError("x")


def _says(text: str, code: int) -> Any:
    def run(_: object) -> int:
        print(text, end="", file=sys.stderr)
        return code

    return run


@pytest.mark.parametrize(
    ("run", "how"),
    [
        (_raises, "traceback"),
        (lambda _: sys.exit(1), "traceback"),
        (_says("Traceback (most recent call last):\n", 2), "traceback"),
        (_says("Error: x\n", 1), "traceback"),
        (_says("", 2), "silent"),
        (_says("Error: x\ny\n", 2), "several lines"),
        (_says("Error: x\n", 2), "refused"),
        (_says("Error: here a base would be loaded\n", 2), "works"),
        (_says("Warning: x\n", 0), "works"),
        (lambda _: time.sleep(5), "slow"),
    ],
)
def test_every_end_is_told_apart(run: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftlab.cli.app.run", run)
    monkeypatch.setattr(option_pairs, "_LONGEST", 1)
    outcome = attempt(PAIR)
    assert outcome.how == how and (how in GOOD) == (how in ("works", "refused"))


def test_every_command_and_value_is_tried_once() -> None:
    every = pairs()
    assert len(set(every)) == len(every) > 4000
    assert {pair.command for pair in every} == {*BEGUN}


@pytest.mark.slow
def test_some_pairs_of_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--every", "60", "--workers", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 + len(BEGUN) and out[-1].endswith("| 0 | 0 | 0 | 0 |")


@pytest.mark.slow
def test_a_fault_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftlab.cli.app.run", _raises)
    (outcome,) = all_of([PAIR], 1)
    assert (outcome.how, outcome.said) == ("traceback", "ValueError: x")
    assert "| methods | 1 | 0 | 0 | 1 | 0 | 0 | 0 |" in table([outcome])
    assert judged(0, "") == "works"
