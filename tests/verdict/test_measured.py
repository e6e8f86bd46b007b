"""Entries from the folders of runs, written here by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from peftlab.errors import InputError
from peftlab.measure import company
from peftlab.metrics import score
from peftlab.records.record import (
    GeneralLoss,
    Latency,
    Loss,
    ModelFacts,
    Others,
    Parameters,
    PeakMemory,
    Progress,
    Record,
    Search,
    Seconds,
    TaskFacts,
)
from peftlab.verdict.components import Runs
from peftlab.verdict.entries import Entry
from peftlab.verdict.judgement import MixedRecordsError, judge
from peftlab.verdict.measured import read_entries

REFERENCES = [f"Place {i} serves English food near the river ." for i in range(8)]


def record(label: str, seed: int, trainable: int = 100, **changes: object) -> Record:
    """A finished run."""
    base = Record(
        method=label,
        label=label,
        settings={},
        seed=seed,
        status="finished",
        config_hash=f"{label}-{seed}",
        task=TaskFacts(name="t", fingerprint="f", train_rows=64, test_rows=8, metrics=["rougeL"]),
        model=ModelFacts(name="m", fingerprint="w", parameters=1000),
        train={"steps": 20, "batch_size": 16, "accumulation": 2, "learning_rate": 0.1 * seed},
        parameters=Parameters(trainable=trainable, stored=trainable, base=1000),
        progress=Progress(steps=20, best_step=20, tokens=1, tokens_per_second=1.0),
        bytes=400,
        seconds=Seconds(train=10.0 + seed),
        peak_memory=PeakMemory(train=5000),
        loss=Loss(train=1.0, validation=1.1, test=1.2),
    )
    return base.model_copy(update=changes)


def predict(folder: Path, wrong: int) -> Path:
    """Predictions of which the first few are wrong in their first words."""
    folder.mkdir(parents=True)
    texts = [
        f"Somewhere {i} has English food near the river ." if i < wrong else text
        for i, text in enumerate(REFERENCES)
    ]
    scores = score("rougeL", texts, [[text] for text in REFERENCES]).per_example["rougeL"]
    rows = [
        {
            "index": i,
            "prediction": t,
            "references": [REFERENCES[i]],
            "scores": {"rougeL": scores[i]},
        }
        for i, t in enumerate(texts)
    ]
    lines = [json.dumps(row) for row in reversed(rows)]
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def runs(folder: Path) -> dict[Path, Record]:
    """Two methods with two seeds, one that failed, one that is running."""
    return {
        predict(folder / "lora0", 1): record("lora", 0),
        predict(folder / "lora1", 2): record("lora", 1),
        predict(folder / "hard0", 5): record("hard_prompt", 0, trainable=0),
        predict(folder / "hard1", 5): record("hard_prompt", 1, trainable=0),
        folder / "ia3": record("ia3", 0).failed("the loss became NaN at step 7"),
        folder / "full": record("full", 0, status="running"),
    }


def test_seeds_come_together(tmp_path: Path) -> None:
    lora, hard, ia3 = read_entries(runs(tmp_path), "rougeL")
    assert [lora.name, hard.name, ia3.name] == ["lora", "hard_prompt", "ia3"]
    assert lora.runs is not None
    assert hard.runs is not None
    assert lora.runs.scores.shape == (2, 8)
    assert np.array_equal(lora.runs.scores[0] < 1, np.arange(8) < 1)
    assert (hard.runs.deterministic, hard.runs.seeds) == (True, 1)
    assert (ia3.runs, ia3.failures[0].reason) == (None, "the loss became NaN at step 7")
    assert lora.costs["training_seconds"] == 10.5
    assert lora.costs["latency"] is None
    assert lora.seconds_per_epoch == pytest.approx(10.5 * 64 / (16 * 2 * 20))
    verdict = judge([lora, hard, ia3])
    assert verdict.best == "lora"
    assert lora.general is None and hard.general is None
    assert "ia3 failed with seed 0" in verdict.sentences[-1]


@pytest.mark.parametrize(
    ("settings", "sample", "fixed"),
    [({}, False, True), ({"shots": 2}, False, False), ({}, True, False), ({"x": 1}, False, False)],
)
def test_a_single_run_is_of_all_seeds_where_none_is_used(
    tmp_path: Path, settings: dict[str, int], sample: bool, fixed: bool
) -> None:
    folder = predict(tmp_path / "hard", 5)
    made = {folder: record("hard_prompt", 0, trainable=0)}
    (unknown,) = read_entries(made, "rougeL")
    assert unknown.runs is not None and not unknown.runs.deterministic, "without its configuration"
    decides = {"method": "hard_prompt", "settings": settings}
    config = {**decides, "task": {"decoding": {"sample": sample}}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (hard,) = read_entries(made, "rougeL")
    assert hard.runs is not None
    assert hard.runs.deterministic == fixed


def test_bounds_are_the_metrics(tmp_path: Path) -> None:
    for metric, bounds in (("rougeL", (0.0, 1.0)), ("bleu", (0.0, 100.0))):
        lora, *_ = read_entries(runs(tmp_path / metric), metric)
        assert lora.runs is not None
        assert lora.runs.bounds == bounds


def test_what_was_forgotten_is_a_mean_over_seeds(tmp_path: Path) -> None:
    folders = [predict(tmp_path / str(seed), 1) for seed in (0, 1)]
    made = {
        folder: record("lora", seed, general=GeneralLoss(before=2.0, after=3.0 + seed))
        for seed, folder in enumerate(folders)
    }
    (lora,) = read_entries(made, "rougeL")
    assert lora.general == (2.0, 3.5)


def test_corpus_metrics_are_computed_from_predictions(tmp_path: Path) -> None:
    lora, *_ = read_entries(runs(tmp_path), "bleu")
    assert lora.runs is not None
    lines = (tmp_path / "lora1" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["prediction"] for line in reversed(lines)]
    expected = score("bleu", texts, [[text] for text in REFERENCES]).corpus["bleu"]
    assert lora.runs.values()[1] == pytest.approx(expected)


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    good = runs(tmp_path)
    longer = record("bitfit", 0, train={"steps": 40, "batch_size": 16, "accumulation": 2})
    with pytest.raises(MixedRecordsError, match=r"steps is 20 \(lora.*and 40 \(bitfit\)"):
        judge(read_entries({**good, predict(tmp_path / "b", 1): longer}, "rougeL"))
    other = record("lora", 2, model=ModelFacts(name="m", fingerprint="x", parameters=1000))
    with pytest.raises(InputError, match=r"runs of lora .* weights of the model is 'w' and 'x'"):
        read_entries({**good, predict(tmp_path / "c", 1): other}, "rougeL")
    with pytest.raises(InputError, match="lora is there twice with seed 1"):
        read_entries({**good, predict(tmp_path / "d", 1): record("lora", 1)}, "rougeL")
    with pytest.raises(InputError, match=r"predictions\.jsonl is missing"):
        read_entries({**good, tmp_path / "e": record("lora", 2)}, "rougeL")
    with pytest.raises(InputError, match="no 'rouge1'; evaluate all runs with the metric 'rouge1'"):
        read_entries(good, "rouge1")
    (tmp_path / "lora0" / "predictions.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is damaged"):
        read_entries(good, "rougeL")


def test_times_that_others_disturbed_are_left_out_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(company, "MOST", 0.05)
    latency = Latency(first_token=0.1, token=0.01)
    search = Search(rate=1.0, trials=[], seconds=4.0, tokens=1, others=0.02)
    made = {
        predict(tmp_path / name, wrong): record(
            name, 0, latency=latency, search=search, others=Others(step=step, latency=0.05)
        )
        for name, wrong, step in (("lora", 1, 0.31), ("ia3", 1, 0.05), ("full", 2, None))
    }
    lora, ia3, full = read_entries(made, "rougeL")
    assert lora.costs["training_seconds"] is None and lora.others == {"training_seconds": 0.31}
    assert lora.seconds_per_epoch is None and lora.search_seconds == 4.0
    assert ia3.costs["training_seconds"] == full.costs["training_seconds"] == 14.0
    assert not ia3.others and not full.others and lora.costs["latency"] == 0.01
    verdict = judge([lora, ia3, full], limits={"training_seconds": 20.0})
    assert verdict.beyond_limits == {"lora": ("training time not measured alone on the machine",)}
    assert "lora" not in verdict.front["training_seconds"]
    told = (
        "Other programs had up to 31 % of the cores meanwhile, so nothing is judged by training"
        " time of lora (≈)."
    )
    assert told in verdict.sentences and verdict.quick[-1] == told
    assert judge([ia3, full]).quick[3:] == ()


def test_frugality_is_not_decided_by_what_others_disturbed() -> None:
    def entry(name: str, seconds: float | None, others: dict[str, float]) -> Entry:
        costs = {"trainable_parameters": 100.0, "training_seconds": seconds, "latency": 0.1}
        return Entry(name, Runs(name, np.ones((1, 8))), costs=costs, others=others)

    first, second = entry("a", None, {"training_seconds": 0.4}), entry("b", 9.0, {})
    assert judge([first, second]).frugal == "a"  # equals stay in their order
    assert judge([entry("a", None, {}), second]).frugal == "b"


def test_the_pace_that_was_taken_again_is_the_training_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(company, "MOST", 0.05)
    seconds = Seconds(train=395.0, step=2.0, train_again=40.0)
    others = Others(train=0.4, step=0.01)
    made = {predict(tmp_path / "lora", 1): record("lora", 0, seconds=seconds, others=others)}
    (lora,) = read_entries(made, "rougeL")
    assert lora.costs["training_seconds"] == 40.0 and not lora.others
    assert lora.seconds_per_epoch == pytest.approx(40.0 * 64 / (16 * 2 * 20))
