"""What is said of some runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftlab.metrics import main_metric
from peftlab.records.reading import StoredRun
from peftlab.verdict.judgement import MixedRecordsError
from peftlab.verdict.outcome import said, verdict
from tests.report.made import record


def kept(folder: Path, label: str, score: float, **changes: Any) -> StoredRun:
    """A run of six test examples whose scores differ a little."""
    scores = [score + 0.01 * i for i in range(-3, 3)]
    made = record(label, scores={"rougeL": sum(scores) / 6}, **changes)
    place = folder / label / f"seed-{made.seed}"
    made.write(place)
    own = {"prediction": "", "references": []}
    rows = [json.dumps({"index": i, "scores": {"rougeL": s}} | own) for i, s in enumerate(scores)]
    (place / "predictions.jsonl").write_text("\n".join(rows) + "\n")
    return StoredRun(made, place)


def test_one_seed_is_said_with_caution(tmp_path: Path) -> None:
    words = said(verdict([kept(tmp_path, "lora", 0.5), kept(tmp_path, "full", 0.6)]))
    assert words[0].startswith("full scores best here")
    assert len(words) == 4 and words[-1].startswith("One seed proves no difference")


def test_several_seeds_say_more(tmp_path: Path) -> None:
    runs = [
        kept(tmp_path, label, quality + 0.001 * seed, seed=seed)
        for label, quality in (("lora", 0.3), ("full", 0.6))
        for seed in (0, 1, 2)
    ]
    outcome = verdict(runs)
    assert outcome.caution is None and outcome.best == "full"
    assert said(outcome) == list(outcome.sentences)


def test_runs_of_different_budgets_are_refused(tmp_path: Path) -> None:
    train = {"steps": 99, "epochs": None, "batch_size": 4, "accumulation": 1}
    with pytest.raises(MixedRecordsError, match="steps is 10"):
        verdict([kept(tmp_path, "lora", 0.5), kept(tmp_path, "full", 0.5, train=train)])


def test_the_metric_that_decides() -> None:
    assert main_metric({"rouge1": 1, "rougeL": 1}) == "rougeL"
    assert main_metric({"accuracy": 1, "macro_f1": 1}) == "accuracy"
