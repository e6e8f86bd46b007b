"""`peftlab convert`, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftlab.cli.app import run

SMALL = ["--limit", "40", "--test-limit", "4", "--batch-size", "4", "-o", "max_new_tokens=6"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    rows = ["--limit", "40", "--batch-size", "4"]
    assert run(["train", "--method", "bitfit", "--steps", "3", "--out", str(out), *rows]) == 0
    return out


def test_it_writes_an_adapter_and_its_fidelity(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["--to", "lora:rank=4", "--out", str(tmp_path), "--task", "demo", "--steps", "2"]
    assert run(["convert", str(trained), *to, *SMALL]) == 0
    said = capsys.readouterr().out
    assert "Of the change 100.0% is where lora does not reach" in said
    assert "nats a token" in said and "95 % interval" in said and "bitfit: " in said
    fidelity = json.loads((tmp_path / "fidelity.json").read_text())
    assert fidelity["examples"] == 4 and fidelity["student"]["method"] == "lora:rank=4"
    assert run(["generate", "--adapter", str(tmp_path), "--input", "a text"]) == 0


def test_what_is_asked_wrongly_is_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, task = ["--out", str(tmp_path / "new")], ["--task", "demo"]
    for arguments, said in (
        (["--to", "lora"], "say with --task on which task"),
        (["--to", "hard_prompt", *task], "has no tensors"),
        (["--to", "ia3", "--steps", "0", *task], "no step was asked for"),
        (["--to", "lora", "--steps", "0", "--epochs", "2", *task], "both --steps and --epochs"),
        (["--to", "loar", *task], "lora"),
        (["--to", "lora", "--replies", "mine", *task], "targets"),
    ):
        assert run(["convert", str(trained), *arguments, *out, *SMALL]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("Error") and said in error


def test_it_is_not_written_over_its_teacher(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (trained, trained / "adapter"):
        to = ["--to", "lora", "--task", "demo", "--out", str(out)]
        for adapter in (trained, trained / "adapter"):
            assert run(["convert", str(adapter), *to, *SMALL]) == 2
            assert "holds the adapter itself" in capsys.readouterr().err
