"""A folder and its card reach a hub: a fake one on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftlab import export
from peftlab.errors import InputError
from tests.export.fake_server import Asked, serving
from tests.export.made import made
from tests.laws import world


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
    card = "# A card\n"
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
