"""`peftlab init` and `peftlab doctor`: what they say is so, and what they write runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from peftlab.cli.app import run
from peftlab.metrics import main_metric
from peftlab.tasks import Task, file_rows

PAIRS = [{"id": str(i), "article": f"words of {i % 50}: " + "red " * (i % 9), "summary": f"of {i}"}
         for i in range(60)]  # fmt: skip
LABELS = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(60)]
TALKS = [{"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}]}
         for i in range(60)]  # fmt: skip
RUSSIAN = [{"source": f"Красный дом {i}", "target": f"дом {i}"} for i in range(60)]
ODD = [{"a: b#": f"x {i}", "'y'": f"z {i}"} for i in range(60)]


def written(folder: Path, rows: list[dict[str, Any]], *options: str) -> dict[str, Any]:
    path = folder / "my rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = folder / "mine.yaml"
    assert run(["init", str(path), "--out", str(place), *options]) == 0
    values: dict[str, Any] = yaml.safe_load(place.read_text())
    return values


@pytest.mark.parametrize("rows", [PAIRS, LABELS, TALKS, RUSSIAN])
def test_what_is_written_is_a_comparison_of_these_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]]
) -> None:
    values = written(tmp_path, rows)
    said = capsys.readouterr().out
    assert run(["compare", "--config", str(tmp_path / "mine.yaml"), "--print-config"]) == 0
    whole = yaml.safe_load(capsys.readouterr().out)
    assert {name: whole[name] for name in ("task", "steps", "seeds")} | {"seeds": 1} == {
        "task": str(tmp_path / "my rows.jsonl"), "steps": values["steps"], "seeds": 1
    }  # fmt: skip
    assert whole["methods"] == values["methods"]
    task = Task.load(tmp_path / "my rows.jsonl", **values.get("task_option", {}))
    assert list(task.metrics) == values["metrics"] == whole["metrics"]
    assert f"train {len(task.train):,}" in said
    text = (tmp_path / "mine.yaml").read_text()
    notes = Task.load(tmp_path / "my rows.jsonl").notes
    assert all(note in text and note in said for note in notes)
    assert "A preview" not in said  # all of it was read
    assert f"ranked by {main_metric(task.metrics)}" in text
    assert ("task_option" in values) == (rows is not TALKS)
    assert ("Cyrillic 100%" if rows is RUSSIAN else "Latin 100%") in said


def test_it_tells_what_recurs_and_what_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [{"source": "red house " * 2000, "target": "a"}, *({"source": "b", "target": "c"},) * 9]
    long += [{"source": f"s{i}", "target": "t"} for i in range(50)]
    written(tmp_path, long)
    said = capsys.readouterr().out
    assert "lose source tokens" in said and "are joined" in said


def test_columns_that_nobody_can_guess_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ODD))
    assert run(["init", str(path)]) == 2
    assert "-o source=<column>" in capsys.readouterr().err
    assert run(["init", str(tmp_path / "none.jsonl")]) == 2
    assert "There is no file or folder" in capsys.readouterr().err
    (tmp_path / "ok.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    (tmp_path / "base").mkdir()
    named = ["--model", str(tmp_path / "base"), "--out", str(tmp_path / "ok.yaml")]
    assert run(["init", str(tmp_path / "ok.jsonl"), *named]) == 2
    assert "cannot load a tokenizer" in capsys.readouterr().err


def test_a_file_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, PAIRS)
    (tmp_path / "mine.yaml").write_text("mine")
    path, place = str(tmp_path / "my rows.jsonl"), str(tmp_path / "mine.yaml")
    assert run(["init", path, "--out", place]) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert run(["init", path, "--out", place, "--force"]) == 0


def test_of_a_large_file_the_first_rows_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftlab.cli import init

    monkeypatch.setattr(file_rows, "LARGE", 1)
    monkeypatch.setattr(init, "_FIRST", 40)
    written(tmp_path, PAIRS)
    assert "no more than 40 rows are read" in capsys.readouterr().out


def test_the_doctor_tells_what_the_system_tells(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert run(["doctor", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"] == psutil.virtual_memory().total
    assert found["packages"]["torch"] in torch.__version__
    assert found["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert run(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"torch {found['packages']['torch']}" in said
    assert "Llama-3.1-8B: fp32 29.9 GiB" in said
    assert "peftlab estimate" in said
    assert run(["doctor", "--format", "xml"]) == 2
    assert "there is no format" in capsys.readouterr().err
