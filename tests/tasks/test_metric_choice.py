"""Which metrics a task gets, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from peftlab.errors import InputError
from peftlab.metrics import MetricPluginError, metric_spec, registry
from peftlab.tasks import Task
from peftlab.tasks.example import Example
from peftlab.tasks.metric_choice import USUAL_METRICS, choose_metrics, with_plugins

UNICODE = tuple(f"{name}:tokenizer=unicode" for name in USUAL_METRICS)


def chosen(
    target: str, given: tuple[str, ...] | None = None, own: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], list[str]]:
    notes: list[str] = []
    return choose_metrics(given, own, [Example("x", (target,))], notes), notes


@pytest.mark.parametrize("target", ["这篇文章讲的是cat的故事", "Где стоят 5 GPU?", "नमस्ते", "مرحبا"])
def test_other_scripts_get_metrics_that_see_them(target: str) -> None:
    metrics, notes = chosen(target)
    assert metrics == ("chrf", *UNICODE)
    assert len(notes) == 1 and "% of the letters and digits" in notes[0]


@pytest.mark.parametrize("target", ["a cat", "Où est l'été à Évry?", "12", "?!"])
def test_latin_text_keeps_the_usual_ones(target: str) -> None:
    assert chosen(target) == (USUAL_METRICS, [])


def test_a_choice_is_kept_and_what_it_cannot_see_is_said() -> None:
    metrics, notes = chosen("这篇文章讲的是猫的故事", given=("rouge1", "bleu", "chrf"))
    assert metrics == ("rouge1", "bleu", "chrf")
    assert notes[0].startswith("rouge1: 0% of the letters")
    assert (
        notes[1].startswith("bleu: the test targets have no spaces") and "tokenize=zh" in notes[1]
    )
    fine = ("rouge1:tokenizer=unicode", "bleu:tokenize=zh", "rougeL-coco")
    assert chosen("这篇文章讲的是猫的故事", own=fine) == (fine, [])


@pytest.mark.parametrize("name", ["metor", "bleu:tokenize=13", "rouge1:colour=red"])
def test_what_cannot_score_is_refused_before_anything_is_trained(name: str) -> None:
    with pytest.raises(InputError):
        chosen("a cat", given=(name,))


def test_a_recipe_leaves_out_what_needs_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("meteor", "meteor-coco"):
        monkeypatch.setitem(registry._REGISTRY, name, replace(metric_spec(name), factory=None))
    metrics, notes = chosen("a cat", own=("bleu-e2e", "meteor-coco", "meteor-dart-raw"))
    assert metrics == ("bleu-e2e",)
    assert len(notes) == 1 and notes[0].startswith("Not scored by meteor-coco, meteor-dart-raw: ")
    assert notes[0].endswith("run pip install 'peftlab[meteor]'.")
    with pytest.raises(MetricPluginError):
        with_plugins(("meteor",), [])
    with pytest.raises(MetricPluginError):
        chosen("a cat", given=("bleu", "meteor"))


def test_a_task_of_own_data_says_why(tmp_path: Path) -> None:
    rows = [{"source": f"第{i}篇", "target": f"这是关于cat的第{i}个故事"} for i in range(30)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = Task.load(path)
    assert task.metrics == ("chrf", *UNICODE)
    assert any("Google's ROUGE drops all others" in note for note in task.notes)
    assert Task.load(path, metrics=("chrf",)).metrics == ("chrf",)
