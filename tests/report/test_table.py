"""Tables say what the records say."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from peftlab.errors import InputError
from peftlab.measure import company
from peftlab.records.reading import StoredRun, metrics, predictions, read
from peftlab.records.record import Record
from peftlab.report.formats import render
from peftlab.report.predictions import words as prediction_words
from peftlab.report.show import show
from peftlab.report.table import as_rich
from tests.report.made import record


def failed(label: str = "full") -> Record:
    return record(label, status="failed", error="out of | memory", scores={}, loss={}, seconds={})


def test_markdown_has_a_row_a_method() -> None:
    seeds = [record(seed=0), record(seed=1, loss={"test": 4.0})]
    head, _, lora, full = render([*seeds, failed()], "md").splitlines()
    titles = [cell.strip() for cell in head.strip("|").split("|")]
    cells = [cell.strip() for cell in lora.strip("|").split("|")]
    row = dict(zip(titles, cells, strict=True))
    assert row["method"] == "lora"
    assert row["trainable"] == "5,000" and row["% of base"] == "0.5%"
    assert row["test loss"] == "3.000 ± 1.414"
    assert row["ROUGE-L"] == "0.500"
    assert row["peak memory"] == "300 MiB" and row["train time"] == "12.5 s"
    assert "failed: out of \\| memory" in full
    assert head.count("|") == lora.count("|") == full.count("|") - 1  # one is escaped


def test_what_was_forgotten_has_a_column_where_it_was_measured() -> None:
    some = [record(general={"before": 2.0, "after": 2.25}), record("ia3")]
    head, _, lora, ia3 = render(some, "md").splitlines()
    place = [cell.strip() for cell in head.split("|")].index("forgetting")
    assert [line.split("|")[place].strip() for line in (lora, ia3)] == ["+0.250", "–"]
    assert "forgetting" not in render([record()], "md")


def test_csv_has_a_line_a_run_and_empty_cells_for_what_is_missing() -> None:
    rows = list(csv.DictReader(io.StringIO(render([record(), failed()], "csv"))))
    assert rows[0]["parameters.trainable"] == "5000" and rows[0]["seconds.step"] == "0.5"
    assert rows[1]["loss.test"] == "" and rows[1]["error"] == "out of | memory"


def test_json_is_the_records() -> None:
    records = [record(), failed()]
    values = json.loads(render(records, "json"))
    assert [Record.model_validate(value) for value in values] == records


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match='Did you mean "json"'):
        render([record()], "jsn")


def shown(records: list[Record], folder: Path) -> str:
    """What the terminal shows of these runs, each of which has five predictions."""
    runs = []
    for i, one in enumerate(records):
        run = StoredRun(one, folder / f"{len(list(folder.iterdir()))}-{i}")
        one.write(run.folder)
        values = [0.3, 0.4, 0.5, 0.6, 0.7]
        lines = [
            json.dumps(
                {"index": j, "prediction": "", "references": [], "scores": {"rougeL": value}}
            )
            for j, value in enumerate(values)
        ]
        (run.folder / "predictions.jsonl").write_text("\n".join(lines))
        runs.append(run)
    console = Console(width=200, record=True, file=io.StringIO())
    show(runs, console)
    return console.export_text()


def test_the_terminal_shows_failures_and_mixed_budgets(tmp_path: Path) -> None:
    text = shown([record(), record("full"), failed("lora:rank=4")], tmp_path)
    assert "lora:rank=4: failed: out of | memory" in text and "One seed proves no" in text
    assert "cannot be compared" not in text
    longer = record("ia3", train={"steps": 20, "epochs": None, "batch_size": 4, "accumulation": 1})
    assert "steps is 10 (lora) and 20 (ia3)" in shown([record(), longer], tmp_path)


@pytest.mark.parametrize(("width", "extras"), [(80, False), (160, True)])
def test_a_narrow_terminal_cuts_no_number(width: int, extras: bool) -> None:
    scores = {"rouge1": 0.5, "rouge2": 0.25, "rougeL": 0.4321}
    parameters = {"trainable": 2_223_744, "stored": 2_223_744, "base": 2_223_744}
    long = record("hard_prompt:instruction=task", scores=scores, parameters=parameters)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(as_rich([long], width))
    text = console.export_text()
    for number in ("2,223,744", "100%", "2.000", "0.500", "0.250", "0.432", "300 MiB", "12.5 s"):
        assert number in text
    assert "hard_prompt" in text and "…" not in text and ("tokens" in text) == extras
    assert max(map(len, text.splitlines())) <= width


def test_records_are_written_whole_and_read_again(tmp_path: Path) -> None:
    made = record()
    made.write(tmp_path / "a" / "seed-0")
    assert read(tmp_path).records == [made]
    assert [f.name for f in (tmp_path / "a" / "seed-0").iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{half", "damaged"),
        ("[]", "an object was expected"),
        ('{"version": 99}', "version 99"),
        ('{"version": 1, "method": "lora"}', "label"),
    ],
)
def test_damaged_records_are_named_and_left_out(tmp_path: Path, text: str, said: str) -> None:
    record().write(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "record.json").write_text(text)
    stored = read(tmp_path)
    assert stored.records == [record()]
    (problem,) = stored.problems
    assert said in problem and "bad" in problem
    (tmp_path / "good" / "record.json").unlink()
    with pytest.raises(InputError, match="holds no record of a run"):
        read(tmp_path)


def test_a_number_that_is_no_number_is_never_written(tmp_path: Path) -> None:
    made = record()
    made.loss.test = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        made.write(tmp_path)


def test_lines_of_a_run(tmp_path: Path) -> None:
    assert predictions(tmp_path) == [] == metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
    (tmp_path / "predictions.jsonl").write_text("{half")
    with pytest.raises(InputError, match="damaged"):
        predictions(tmp_path)


def test_times_that_others_disturbed_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "MOST", 0.05)
    disturbed = record(others={"step": 0.3, "generate": 0.06, "evaluate": 0.05})
    quiet = record("ia3", others={"step": 0.01})
    _, _, lora, ia3 = render([disturbed, quiet], "md", "usual,step_seconds").splitlines()
    assert "| ≈ 12.5 s |" in lora and "| ≈ 500.0 ms |" in lora and "≈" not in ia3
    _, _, row = render([disturbed], "md", "evaluate_seconds,generate_seconds").splitlines()
    assert row == "| lora | 1.0 s | ≈ 2.0 s |"
    seeds = [disturbed, record(seed=1, seconds={"train": 14.5})]
    assert "≈ 13.5 s ± 1.4 s" in render(seeds, "md")
    assert r"$\approx$ 12.5 s" in render([disturbed], "latex")
    (line,) = csv.DictReader(io.StringIO(render([disturbed], "csv")))
    assert (line["others.step"], line["seconds.train"]) == ("0.3", "12.5")


def test_predictions_are_not_held_against_times_that_others_disturbed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(company, "MOST", 0.05)
    predicted = {"train_seconds": 10.0}
    quiet, disturbed = (
        record(name, predicted=predicted, others={"step": share}, seconds={"train": seconds})
        for name, share, seconds in (("ia3", 0.0, 12.5), ("lora", 0.3, 99.0))
    )
    (told,) = prediction_words([quiet, disturbed])
    assert "by 20 % on average, at most by 20 % (ia3" in told
    assert prediction_words([disturbed]) == []
