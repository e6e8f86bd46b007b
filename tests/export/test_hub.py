"""A folder and its card reach a hub: a fake one on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from peftlab import export
from peftlab.errors import InputError
from tests.export.fake_server import Asked, serving
from tests.export.made import made
from tests.laws import world


def _record(label: str, seed: int, score: float, **changes: Any) -> dict[str, Any]:
    return {
        "label": label,
        "method": label.partition(":")[0],
        "settings": {"rank": 2, "layers": [], "targets": ["q", "v"]},
        "seed": seed,
        "status": "finished",
        "task": {
            "name": "e2e", "fingerprint": "abc" * 9, "train_rows": 1000, "test_rows": 50,
        },
        "model": {"name": "gpt2", "fingerprint": "xxh3-128:00", "parameters": 124_000_000},
        "train": {"steps": 300, "learning_rate": None},
        "parameters": {"trainable": 3840, "stored": 3840, "base": 124_000_000},
        "seconds": {"train": 12.5},
        "scores": {"bleu": score, "rougeL": score / 100},
        "guest": False,
        **changes,
    }  # fmt: skip


RECORDS = [
    _record("lora:rank=2", 0, 60.0),
    _record("lora:rank=2", 1, 62.0),
    _record("prompt_tuning", 0, 50.0),
    _record("peft:oft", 0, 58.0, guest=True),
    _record("full", 0, 99.0, status="failed"),
]


def test_the_card_holds_the_comparison() -> None:
    card = ModelCard(export.model_card(RECORDS, "lora:rank=2", license="mit"))
    assert card.data.base_model == "gpt2"
    assert card.data.library_name == "peft"
    assert {"peftlab", "lora"} <= set(card.data.tags)
    assert {r.metric_type: r.metric_value for r in card.data.eval_results} == {
        "bleu": 61.0, "rougeL": 0.61,
    }  # fmt: skip
    assert "| **lora:rank=2** | 2 | 61 ± 1.4 | 0.61 ± 0.014 | 3,840 | 3,840 | 12.5 |" in card.text
    assert "| peft:oft (guest) | 1 | 58 |" in card.text
    assert "99" not in card.text
    assert "steps=300" in card.text
    assert "learning_rate" not in card.text


def test_runs_of_other_rows_are_not_compared() -> None:
    other = _record("last_k", 0, 70.0)
    other["task"]["fingerprint"] = "def"
    assert "last_k" not in export.model_card([*RECORDS, other], "lora:rank=2")


def test_a_label_without_a_finished_run() -> None:
    with pytest.raises(InputError, match="no finished run is labelled 'full'; there are lora"):
        export.model_card(RECORDS, "full")


def _hub(asked: Asked) -> tuple[int, Any]:
    """As much of the hub as an upload of small files needs."""
    if asked.path == "/api/repos/create":
        return 200, {"url": "http://127.0.0.1/someone/e2e", "name": "someone/e2e", "id": "1"}
    if "/preupload/" in asked.path:
        files = json.loads(asked.body)["files"]
        return 200, {
            "files": [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
        }
    if "/commit/" in asked.path:
        return 200, {"commitUrl": "http://127.0.0.1/someone/e2e/commit/1", "commitOid": "1" * 40}
    return 200, {"id": "someone/e2e", "sha": "0" * 40, "siblings": [], "private": True}


def test_pushed_whole(tmp_path: Path) -> None:
    export.peft.save(made("lora:rank=2", "gpt2"), world.model("gpt2"), tmp_path)
    card = export.model_card(RECORDS, "lora:rank=2")
    with serving(_hub) as fake:
        address = export.push(tmp_path, "someone/e2e", card, endpoint=fake.url, token="hf_none")
    assert "someone/e2e" in address
    made_repo = next(a for a in fake.asked if a.path == "/api/repos/create")
    assert "private" in json.dumps(json.loads(made_repo.body))  # {"visibility": "private"}
    commit = next(a for a in fake.asked if "/commit/" in a.path)
    lines = [json.loads(line) for line in commit.body.splitlines()]
    sent = {line["value"]["path"] for line in lines if line["key"] == "file"}
    assert sent == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "peftlab.json",
    }  # fmt: skip
    assert (tmp_path / "README.md").read_text() == card


def test_a_hub_that_refuses(tmp_path: Path) -> None:
    export.peft.save(made("lora:rank=2", "gpt2"), world.model("gpt2"), tmp_path)
    with (
        serving(lambda _: (401, {"error": "Invalid credentials"})) as fake,
        pytest.raises(InputError, match=r"cannot upload to someone/e2e.*hf auth login"),
    ):
        export.push(tmp_path, "someone/e2e", "card", endpoint=fake.url, token="hf_none")
    with pytest.raises(InputError, match="user/name"):
        export.push(tmp_path, "a/b/c", "card", endpoint="http://127.0.0.1:9", token="hf_none")


def test_nothing_to_push(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds no export: one of adapter_config\.json"):
        export.push(tmp_path, "someone/e2e", "card")
