"""Trainings that differ in length share their beginning, and nobody could tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from peftlab.errors import InputError
from peftlab.methods import parse_one
from peftlab.training import TrainConfig, Trained, train
from peftlab.training.loop import stem_of
from tests.laws import world

CONFIG = TrainConfig(
    steps=10, batch_size=4, evaluate_every=3, schedule="warmup_stable_decay", learning_rate=0.01
)


def _config(steps: int) -> TrainConfig:
    return replace(CONFIG, steps=steps, warmup=2 / steps)


def _trained(spec: str, config: TrainConfig, stems: Path | None, folder: Path) -> Trained:
    model, task, method = world.model("llama"), world.task(), parse_one(spec)
    stem = stem_of(stems, method, task, config, model.fingerprint) if stems else None
    return train(model, method, task, config, folder=folder, stem=stem)


@pytest.mark.parametrize("spec", ["lora:rank=2,dropout=0.1", "prefix_tuning:length=3,begin=cue"])
def test_a_longer_training_goes_on_bit_for_bit(spec: str, tmp_path: Path) -> None:
    for steps in (10, 20):
        _trained(spec, _config(steps), tmp_path / "stems", tmp_path / f"stemmed-{steps}")
    stemmed = _trained(spec, _config(40), tmp_path / "stems", tmp_path / "stemmed-40")
    alone = _trained(spec, _config(40), None, tmp_path / "alone")
    assert stemmed.losses == alone.losses and len(alone.losses) == 40
    assert stemmed.validation_loss == alone.validation_loss
    assert stemmed.best_step == alone.best_step
    for name, tensor in alone.adaptation.state.tensors.items():
        assert torch.equal(stemmed.adaptation.state.tensors[name], tensor), name
    names = sorted(path.name for path in (tmp_path / "stems").iterdir())
    assert names == ["stem-32.safetensors"], "shorter beginnings have served"
    # The steps that the shorter one had taken are not taken again.
    taken = len((tmp_path / "stemmed-40" / "metrics.jsonl").read_text().splitlines())
    assert taken < len((tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()) - 15


def test_a_shorter_training_takes_nothing_that_comes_after_it(tmp_path: Path) -> None:
    _trained("lora:rank=2", _config(20), tmp_path / "stems", tmp_path / "long")
    short = _trained("lora:rank=2", _config(10), tmp_path / "stems", tmp_path / "short")
    alone = _trained("lora:rank=2", _config(10), None, tmp_path / "alone")
    assert short.losses == alone.losses


@pytest.mark.parametrize("change", [{"learning_rate": 0.02}, {"seed": 1}, {"batch_size": 2}])
def test_what_decides_the_steps_decides_the_stem(change: dict[str, float], tmp_path: Path) -> None:
    _trained("lora:rank=2", _config(10), tmp_path / "stems", tmp_path / "one")
    other = replace(_config(20), **change)
    stemmed = _trained("lora:rank=2", other, tmp_path / "stems", tmp_path / "two")
    alone = _trained("lora:rank=2", other, None, tmp_path / "alone")
    assert stemmed.losses == alone.losses and stemmed.earlier_seconds == 0


def test_a_damaged_beginning_is_none(tmp_path: Path) -> None:
    _trained("lora:rank=2", _config(10), tmp_path / "stems", tmp_path / "one")
    (stem,) = (tmp_path / "stems").iterdir()
    stem.write_bytes(stem.read_bytes()[:200])
    long = _trained("lora:rank=2", _config(20), tmp_path / "stems", tmp_path / "two")
    assert long.steps == 20 and long.earlier_seconds == 0


def test_the_rate_is_level_until_the_last_fifth(tmp_path: Path) -> None:
    import json

    _trained("lora:rank=2", _config(10), None, tmp_path / "run")
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    rates = [line["lr"] for line in lines if "lr" in line]
    assert rates[2:9] == pytest.approx([0.01] * 7) and rates[9] == pytest.approx(0.005)
    assert rates[0] < rates[1] < 0.01 + 1e-9


def test_another_schedule_has_no_stem(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="under the schedule warmup_stable_decay"):
        _trained("lora:rank=2", replace(CONFIG, schedule="linear"), tmp_path, tmp_path / "run")
