"""What folders tell of adapters that nobody has loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from peftlab.serve.described import Described, Descriptions, example
from tests.laws import world as laws
from tests.serve import world
from tests.serve.world import NAMES


@pytest.fixture
def told() -> Descriptions:
    return Descriptions(laws.model("gpt2").shape)


@pytest.mark.parametrize("name", NAMES)
def test_method_count_and_size_of_every_kind(told: Descriptions, tmp_path: Path, name: str) -> None:
    adaptation = world.adaptation(name, 0)
    adaptation.save(tmp_path / name)
    described = told.of(tmp_path / name)
    assert described.method == adaptation.method.name
    assert described.trainable == adaptation.method.count(laws.model("gpt2").shape).trainable
    assert described.bytes == (tmp_path / name / "adaptation.safetensors").stat().st_size
    assert described.task is None


def run(folder: Path) -> Path:
    """A run's folder with an adapter in it."""
    world.adaptation("a8", 0).save(folder / "adapter")
    record = {"task": {"name": "data/news"}, "parameters": {"trainable": 77}}
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    lines = [json.dumps({"source": text}) for text in ("first", "second")]
    (folder / "predictions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "adapter"


def test_the_run_beside_it_tells_the_task(told: Descriptions, tmp_path: Path) -> None:
    described = told.of(run(tmp_path))
    assert (described.task, described.trainable) == ("news", 77)
    assert example(tmp_path / "adapter") == "first"


def test_a_replaced_adapter_is_described_anew(told: Descriptions, tmp_path: Path) -> None:
    adapter = run(tmp_path)
    assert told.of(adapter).method == "lora"
    world.adaptation("a10", 0).save(adapter)
    os.utime(adapter / "adaptation.json", ns=(1, 1))
    assert told.of(adapter).method == "ia3"


def test_pefts_format_tells_its_method(told: Descriptions, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PREFIX_TUNING"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"12345")
    assert told.of(tmp_path) == Described("prefix_tuning", None, None, 5)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "\xff", '{"method": 3, "settings": []}', '{"text": {"exemplars": 1}}']
)
def test_what_is_damaged_tells_nothing(told: Descriptions, tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter").mkdir()
    for path in ("adapter/adaptation.json", "record.json", "predictions.jsonl"):
        (tmp_path / path).write_bytes(text.encode("latin-1"))
    described = told.of(tmp_path / "adapter")
    assert (described.method, described.task, described.trainable) == (None, None, None)
    assert example(tmp_path / "adapter") is None
    assert told.of(None) == Described() == told.of(tmp_path / "nowhere")
