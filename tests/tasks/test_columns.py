"""Which values of which columns become sources, targets and labels, and what is said of others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from peftlab.errors import InputError
from peftlab.tasks import Task
from peftlab.tasks.choices import USUAL

NO_LABEL = [r"holds -1, which data sets write for .no label.", "-o drop_blank=true"]


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(task: Task) -> list[tuple[str, tuple[str, ...]]]:
    return [(e.source, e.targets) for s in ("train", "validation", "test") for e in task.split(s)]


def glue(folder: Path) -> Path:
    names = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": names})

    def part(count: int, hidden: bool) -> datasets.Dataset:
        rows = {
            "sentence": [f"film {count} {i}" for i in range(count)],
            "label": [-1 if hidden else i % 2 for i in range(count)],
        }
        return datasets.Dataset.from_dict(rows, features=features)

    parts = {"train": part(40, False), "validation": part(6, False), "test": part(5, True)}
    datasets.DatasetDict(parts).save_to_disk(folder)
    return folder


def test_hidden_labels_are_no_class(tmp_path: Path) -> None:
    folder = glue(tmp_path / "glue")
    with pytest.raises(InputError, match=".*".join(NO_LABEL)):
        Task.load(folder)
    task = Task.load(folder, drop_blank=True)
    assert task.labels == ("negative", "positive") and (len(task.train), len(task.test)) == (36, 4)
    assert any("split test has no row with both" in note for note in task.notes)


@pytest.mark.parametrize("write", [int, str])
def test_labels_that_are_integers(tmp_path: Path, write: Any) -> None:
    rows = [{"text": f"s{i}", "label": write(i % 3)} for i in range(40)]
    task = Task.load(jsonl(tmp_path / "a.jsonl", rows))
    assert task.labels == ("0", "1", "2") and task.metrics == USUAL
    rows.append({"text": "s", "label": write(-1)})
    path = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=rf"line 41: the column 'label' {NO_LABEL[0]}"):
        Task.load(path)
    named = Task.load(path, labels=("-1", "0", "1", "2"))
    assert ("s", ("-1",)) in rows_of(named)


def test_labels_that_are_truth_values(tmp_path: Path) -> None:
    rows = [{"text": f"s{i}", "label": i % 2 == 0} for i in range(20)]
    assert Task.load(jsonl(tmp_path / "a.jsonl", rows)).labels == ("false", "true")


def test_a_text_with_two_labels_is_two_rows(tmp_path: Path) -> None:
    rows = [{"text": f"s{i % 25}", "label": "yn"[i % 2]} for i in range(50)]
    task = Task.load(jsonl(tmp_path / "a.jsonl", rows))
    assert sorted(rows_of(task)) == sorted((r["text"], (r["label"],)) for r in rows)
    assert any("texts of train stand there with different labels" in note for note in task.notes)
    parts = [{e.source for e in task.split(s)} for s in ("train", "validation", "test")]
    assert len(set().union(*parts)) == sum(map(len, parts)), "a text is in one split only"


def test_null_is_blank(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"source": f"s{i}", "target": f"t{i}"} for i in range(9)]
    rows += [{"source": f"x{i}", "target": t} for i, t in enumerate([None, "", [], [None], " "])]
    path = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=r"line 10: .*holds null; .*-o drop_blank=true"):
        Task.load(path)
    task = Task.load(path, drop_blank=True)
    assert {source[0] for source, _ in rows_of(task)} == {"s"}
    assert "5 rows of train are left out, for want of a source or a target." in task.notes


def test_alpaca_without_an_input(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"instruction": f"do {i}", "output": "ok"} for i in range(12)]
    for i, given in enumerate(["it", "", None]):
        rows[i]["input"] = given
    task = Task.load(jsonl(tmp_path / "a.jsonl", rows))
    assert "source=instruction+input" in task.notes[0]
    assert sorted(s for s, _ in rows_of(task)) == sorted(
        ["do 0\nit", *(f"do {i}" for i in range(1, 12))]
    )


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    rows = [
        {"system": "Be terse.", "instruction": f"do {i}", "output": "ok", "history": [], "id": 3}
        for i in range(9)
    ]
    note = Task.load(jsonl(tmp_path / "a.jsonl", rows), conversations=False).notes[0]
    assert "(guessed); not used: system, history, id (replies depend on system and" in note
    shown = {"template": "{system} {source} {target}", "conversations": False}
    told = Task.load(tmp_path / "a.jsonl", **shown).notes[0]
    assert "not used: history, id" in told


def test_columns_inside_columns(tmp_path: Path) -> None:
    rows = [
        {
            "id": i,
            "translation": {"en": f"e{i}", "de": f"d{i}"},
            "question": f"q{i}",
            "answers": {"text": [f"a{i}", f"a{i}"], "answer_start": [1, 1]},
        }
        for i in range(9)
    ]
    path = jsonl(tmp_path / "a.jsonl", rows)
    inside = {"source": "translation.en", "target": "translation.de"}
    task = Task.load(path, columns=inside, template="{question} {source} {target}")
    assert ("e3", ("d3",)) in rows_of(task)
    assert task.notes[0].endswith("(given); not used: id, answers.")
    squad = Task.load(path, columns={"target": "answers.text"})
    assert ("q3", ("a3", "a3")) in rows_of(squad)
    for columns, said in (
        ({}, r"'answers' holds the dict of answers.text, answers.answer_start; .*with the dot"),
        (
            {"source": "translation.fr", "target": "question"},
            r"line 1 has no column 'translation.f",
        ),
        ({"source": "nothing.en", "target": "question"}, r"has no column 'nothing.en'; it has id"),
    ):
        with pytest.raises(InputError, match=said):
            Task.load(path, columns=columns)


def test_structs_are_offered_by_their_paths(tmp_path: Path) -> None:
    rows = [{"translation": {"en": "e", "de": "d"}} for _ in range(9)]
    with pytest.raises(InputError, match=r"-o source=<column>.*translation.en, translation.de"):
        Task.load(jsonl(tmp_path / "a.jsonl", rows))
