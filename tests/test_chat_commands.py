"""`train`, `evaluate` and `generate` on a tiny instruction model: framed, said once, kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftlab.cli.app import run
from tests.comparison.conftest import rows
from tests.models import tiny
from tests.tasks.tokenizers_for_tests import CHAT, SMOL, byte_level


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """A folder whose tokenizer has a chat template."""
    folder, tokenizer = tmp_path / "talks", byte_level(chat=SMOL)
    tiny("gpt2", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_adapter_is_trained_and_asked_in_its_chat(
    talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "places.jsonl"
    task.write_text("\n".join(json.dumps(row) for row in rows(30)))
    out = tmp_path / "run"

    def told(command: str) -> tuple[str, str]:
        assert run(command.split()) == 0
        found = capsys.readouterr()
        return found.out, found.err

    about = f"--task {task} --device cpu"
    _, notes = told(
        f"train --model {talks} {about} --method prompt_tuning:length=2 --steps 2 --batch-size 2 "
        f"--validation-limit 2 --out {out}"
    )
    assert notes.count("Rows stand in the chat template") == 1
    stored = json.loads((out / "adapter/adaptation.json").read_text())["template"]
    assert stored["chat"] and stored["frame"]["head"].startswith(
        "<|im_start|>system\nYou are a cat."
    )
    asked = f"generate --adapter {out} --max-new-tokens 6 --device cpu --input Place"
    before, kept = told(asked)
    assert kept.count("Rows stand in the chat that the adapter was trained in") == 1

    (talks / "chat_template.jinja").write_text(CHAT)
    assert told(asked) == (before, kept), "the tokenizer's template is another now"
    scores, kept = told(f"evaluate --adapter {out} {about} --limit 2")
    assert "loss" in scores and kept.count("Rows stand in the chat that the adapter was") == 1
    assert run(f"evaluate --adapter {out} {about} -o chat=false".split()) == 2
    assert "its own template, in a chat" in capsys.readouterr().err


def test_a_template_that_cannot_frame_a_task_ends_in_one_line(
    talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (talks / "chat_template.jinja").write_text("{{ raise_exception('only for adults') }}")
    task = tmp_path / "places.jsonl"
    task.write_text("\n".join(json.dumps(row) for row in rows(30)))
    told = f"train --model {talks} --task {task} --method bitfit --steps 1 --device cpu"
    assert run([*told.split(), "--out", str(tmp_path / "run")]) == 2
    (error,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("Error")]
    assert "only for adults" in error and "-o chat=false" in error
