"""The card that an adaptation has on the hub."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from peftlab.errors import InputError
from peftlab.records import figures
from peftlab.records.record import Record
from peftlab.report.model_card import model_card
from tests.report.made import record

TASK = {
    "name": "e2e", "fingerprint": "abc" * 9, "train_rows": 1000, "test_rows": 50,
    "metrics": ["bleu", "rougeL"],
}  # fmt: skip


def _record(label: str, seed: int, score: float, **changes: Any) -> Record:
    return record(
        label,
        seed=seed,
        settings={"rank": 2, "layers": [], "targets": ["q", "v"]},
        scores={"bleu": score, "rougeL": score / 100},
        **{
            "task": TASK,
            "model": {"name": "gpt2", "fingerprint": "xxh3-128:00", "parameters": 124_000_000},
            "train": {"steps": 300, "learning_rate": None},
            "parameters": {"trainable": 3840, "stored": 3840, "base": 124_000_000},
            **changes,
        },
    )


RECORDS = [
    _record("lora:rank=2", 0, 60.0),
    _record("lora:rank=2", 1, 62.0),
    _record("prompt_tuning", 0, 50.0),
    _record("peft:oft", 0, 58.0, guest=True),
    _record("full", 0, 99.0, status="failed"),
]


def _rows(card: str) -> list[list[str]]:
    lines = [line for line in card.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_card_holds_the_comparison() -> None:
    card = ModelCard(model_card(RECORDS, "lora:rank=2", license="mit"))
    assert card.data.base_model == "gpt2"
    assert card.data.library_name == "peft"
    assert {"peftlab", "lora"} <= set(card.data.tags)
    assert {r.metric_type: r.metric_value for r in card.data.eval_results} == {
        "bleu": 61.0, "rougeL": 0.61,
    }  # fmt: skip
    head, _, own, *_ = _rows(card.text)
    shown = dict(zip(head, own, strict=True))
    assert (shown["method"], shown["seeds"]) == ("**lora:rank=2**", "2")
    assert (shown["BLEU"], shown["trainable"]) == ("61.0 ± 1.4", "3,840")
    assert re.match(r"12\.5 s", shown["train time"])
    assert "| peft:oft (guest) | 1 |" in card.text
    assert "99" not in card.text
    assert "steps=300" in card.text
    assert "learning_rate" not in card.text


def test_the_card_has_the_figures_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {True: lambda _: True, False: lambda _: False}
    monkeypatch.setattr(figures, "FIGURES", tuple(
        replace(one, usual=shown[one.name in ("test_loss", "first_token")])
        for one in figures.FIGURES
    ))  # fmt: skip
    head, *_ = _rows(model_card(RECORDS, "lora:rank=2"))
    titles = [figure.title for figure in figures.chosen(RECORDS[:3])]
    assert head == ["method", "seeds", *titles]
    assert "first token" in titles and "trainable" not in titles


def test_runs_of_other_rows_are_not_compared() -> None:
    other = _record("last_k", 0, 70.0, task={**TASK, "fingerprint": "def"})
    assert "last_k" not in model_card([*RECORDS, other], "lora:rank=2")


def test_a_label_without_a_finished_run() -> None:
    with pytest.raises(InputError, match="no finished run is labelled 'full'; there are lora"):
        model_card(RECORDS, "full")


def test_the_card_says_of_which_samples_its_scores_are() -> None:
    some = {"test": {"rows": 50, "of": 630}}
    sampled = [_record("lora:rank=2", seed, 60.0, samples=some) for seed in (0, 1)]
    assert "of samples, the same for every method: 50 of 630 test examples" in model_card(
        sampled, "lora:rank=2"
    )
    other = _record("lora:rank=2", 2, 60.0, samples={"test": {"rows": 60, "of": 630}})
    assert "that differ between runs: 50 of 630 test examples; 60 of 630" in model_card(
        [*sampled, other], "lora:rank=2"
    )
    assert "of samples" not in model_card(RECORDS, "lora:rank=2")
