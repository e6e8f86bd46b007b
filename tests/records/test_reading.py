"""One damaged file is one line, and harms its own run alone; lines end where JSON's lines end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftlab.cli.app import run as command
from peftlab.errors import InputError
from peftlab.records.reading import metrics, predictions, read
from tests.report.pages import keep, lines

ROW = {"index": 0, "prediction": "p", "references": ["r"], "scores": {"rougeL": 0.5}}
DEEP = "[" * 100_000


def test_texts_may_hold_any_line_end_and_rows_come_by_their_index(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r"
    rows = [ROW | {"index": 1, "prediction": odd}, ROW | {"index": 0}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "predictions.jsonl").write_text(text, encoding="utf-8", newline="")
    assert [row["prediction"] for row in predictions(tmp_path)] == ["p", odd]


def test_what_training_logged_may_be_infinite(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "validation_loss": Infinity, "x": 1}\n')
    assert metrics(tmp_path) == [{"step": 1, "validation_loss": float("inf"), "x": 1}]


def test_a_line_without_its_end_is_none_yet(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
    (tmp_path / "metrics.jsonl").write_text('{"step"')
    assert metrics(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff\xfe", "line 1 is no prediction with references"),
        (b"[]\n", "should be an object"),
        (DEEP.encode(), "recursion limit"),
        (json.dumps(ROW | {"prediction": None}).encode(), "prediction: "),
        (json.dumps(ROW | {"references": "x"}).encode(), "references: "),
        (json.dumps(ROW | {"scores": []}).encode(), "scores: "),
        (json.dumps(ROW | {"scores": {"rougeL": "x"}}).encode(), "scores: rougeL: "),
        (json.dumps(ROW | {"loss_sums": "a"}).encode(), "loss_sums: "),
        (b'{"index": ' + b"1" * 5000 + b"}", "line 1"),
    ],
)
def test_damage_is_said_in_one_line(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "predictions.jsonl").write_bytes(text)
    with pytest.raises(InputError) as told:
        predictions(tmp_path)
    assert said in str(told.value) and "\n" not in str(told.value)


def whole(out: Path) -> Path:
    """Three good runs and one that is to be damaged."""
    for label in ("full", "ia3", "lora"):
        keep(out, label)
    keep(out, "lora", 1)
    return out / "lora" / "seed-1"


def broken(folder: Path, name: str, text: str | None) -> None:
    """Put something else where a file was; None: a folder."""
    path = folder / name
    path.unlink()
    path.mkdir() if text is None else path.write_text(text, encoding="utf-8")


def changed(folder: Path, **values: object) -> str:
    """The text of its record with other values."""
    record = json.loads((folder / "record.json").read_text())
    for name, value in values.items():
        part, _, key = name.partition("__")
        if key:
            record[part][key] = value
        else:
            record[part] = value
    return json.dumps(record)


RECORDS: dict[str, dict[str, object]] = {
    "nan loss": {"loss__test": float("nan")},
    "no scores": {"scores": {"rougeL": float("nan")}},
    "no base": {"parameters__base": 0},
    "negative time": {"seconds__train": -1.0},
    "endless": {"latency": {"first_token": float("inf"), "token": float("nan")}},
    "beyond any machine": {"bytes": 10**400},
    "no status": {"status": "perhaps"},
}


@pytest.mark.parametrize(
    ("kind", "format"),
    [
        *((kind, "table") for kind in (*RECORDS, "deep", "long", "folder", "gone")),
        *(("folder", format) for format in ("md", "latex", "csv", "json", "html")),
    ],
)
def test_one_bad_record_does_not_hide_the_others(
    tmp_path: Path, kind: str, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = whole(tmp_path)
    texts = {"deep": DEEP, "long": '{"version": ' + "1" * 5000 + "}", "folder": None, "gone": ""}
    text = texts[kind] if kind in texts else changed(folder, **RECORDS[kind])
    broken(folder, "record.json", text)
    assert command(["report", str(tmp_path), "--format", format]) == 0
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("left out: ") and str(folder / "record.json") in line
    page = (tmp_path / "report.html").read_text() if format == "html" else told.out
    assert all(label in page for label in ("full", "ia3", "lora"))


@pytest.mark.parametrize("damage", ["", "[]\n", '{"index": 0}\n', json.dumps(ROW) + "\n", None])
def test_one_bad_file_of_predictions_does_not_hide_the_verdict(
    tmp_path: Path, damage: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = whole(tmp_path)
    broken(folder, "predictions.jsonl", damage)
    assert command(["report", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    (line,) = [text for text in out if "left out of the verdict" in text]
    assert str(folder / "predictions.jsonl") in line
    assert any("scores best here" in text for text in out)
    assert command(["report", str(tmp_path), "--format", "html"]) == 0
    assert str(folder / "predictions.jsonl") in (tmp_path / "report.html").read_text()


def test_scores_that_are_no_numbers_leave_their_run_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = whole(tmp_path)
    rows = [dict(row, scores={"rougeL": float("nan")}) for row in predictions(folder)]
    lines(folder / "predictions.jsonl", rows)
    assert command(["report", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "scores that are not finite" in out and "scores best here" in out


def test_settings_of_another_type_are_no_reason_to_stop(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    text = changed(folder, environment={"hardware": {"memory_bytes": "much"}})
    (folder / "record.json").write_text(text)
    assert command(["report", str(tmp_path), "--format", "html"]) == 0
    assert len(read(tmp_path).runs) == 4


def test_a_log_with_numbers_that_are_none_leaves_its_curve_out(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    assert command(["report", str(tmp_path), "--format", "html"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "the loss of step 1 is not a finite number" in page and "Training loss" in page
