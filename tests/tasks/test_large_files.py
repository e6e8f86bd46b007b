"""Rows that stay in their file, against the same rows in memory."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftlab.cli.app import run
from peftlab.errors import InputError
from peftlab.tasks import Task, file_rows, files
from peftlab.tasks.file_rows import FileRows
from peftlab.tasks.rows import StoredRows, with_pairs
from peftlab.tasks.table import Table

Write = Callable[[Path, list[dict[str, Any]]], None]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Every file counts as large."""
    monkeypatch.setattr(file_rows, "LARGE", 1)
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path / "cache"))
    yield monkeypatch


def both(path: Path) -> tuple[Table, Table]:
    """A file's table as it is in memory, and as it stays in the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_rows, "LARGE", 1 << 40)
        small = files.read(path)
        patch.setattr(file_rows, "LARGE", 1)
        stored = files.read(path)
    assert isinstance(small.rows, list)
    assert isinstance(stored.rows, FileRows)
    return small, stored


def agree(path: Path) -> None:
    small, stored = both(path)
    assert list(stored.rows) == small.rows == stored.rows[:]
    assert stored.columns == small.columns
    assert list(stored.lines or ()) == list(small.lines or ())
    assert stored.rows[len(small.rows) - 1] == small.rows[-1]
    assert stored.place(0) == small.place(0)
    again: Table = pickle.loads(pickle.dumps(stored))
    assert list(again.rows) == small.rows


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(texts, texts, st.sampled_from(["\n", "\r\n", "\n \n", "\n\u00a0\n"])),
        min_size=1,
    )
)
def test_lines_of_json_are_the_same_wherever_they_lie(
    tmp_path: Path, rows: list[tuple[str, str, str]]
) -> None:
    path = tmp_path / "a.jsonl"
    lines = (json.dumps({"s": s, "t": t}, ensure_ascii=bool(len(s) % 2)) + e for s, t, e in rows)
    path.write_text("\ufeff" * (len(rows) % 2) + "".join(lines), "utf-8", newline="")
    agree(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(texts, texts), min_size=1),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_cells_are_the_same_wherever_they_lie(
    tmp_path: Path, rows: list[tuple[str, str]], end: str, mark: bool
) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = ["source,target", *(f"{quoted(a)},{quoted(b)}" for a, b in rows)]
    path = tmp_path / "a.csv"
    path.write_text("\ufeff" * mark + end.join(lines) + end, "utf-8", newline="")
    agree(path)


@pytest.mark.parametrize("pack", [gzip.open, bz2.open])
def test_packed_rows_are_read_from_an_unpacked_copy(
    tmp_path: Path, large: pytest.MonkeyPatch, pack: Any
) -> None:
    path = tmp_path / f"a.jsonl.{'gz' if pack is gzip.open else 'bz2'}"
    with pack(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"source": f"ä{i}", "target": "b"}) + "\n" for i in range(5))
    agree(path)
    copies = list((tmp_path / "cache" / "unpacked").iterdir())
    assert len(copies) == 1
    table = files.read(path)
    assert list((tmp_path / "cache" / "unpacked").iterdir()) == copies
    carried = pickle.dumps(table)
    copies[0].unlink()  # whoever empties the cache
    assert list(pickle.loads(carried).rows) == list(files.read(path).rows)


def test_cells_of_any_length_and_marks_within_them_are_read_in_any_process(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"source,target\n{'x' * 200_000},b\n\ufeffc,d\n", "utf-8")
    _, stored = both(path)
    agree(path)
    carried = pickle.dumps(stored)
    csv.field_size_limit(131_072)  # as in a process that has read nothing yet
    again: Table = pickle.loads(carried)
    assert len(again.rows[0]["source"]) == 200_000
    assert again.rows[1]["source"] == "\ufeffc"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, large: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write('{"source": "a", "target": "b"}\n')
    (tmp_path / "file").write_text("")
    large.setenv("PEFTLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set PEFTLAB_CACHE to a folder"):
        files.read(path)


def test_columns_that_come_late_are_known_and_doubled_headers_marked(tmp_path: Path) -> None:
    late = tmp_path / "a.jsonl"
    late.write_text('{"source": "a", "target": "b"}\n{"target": "b", "extra": 1, "source": "c"}\n')
    agree(late)
    assert both(late)[1].columns == ["source", "target", "extra"]
    doubled = tmp_path / "a.csv"
    doubled.write_text("a,b,a\n1,2,3\n")
    agree(doubled)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source": \n'),
        ("a.jsonl", '{"source": "a", "target": "b"}\n[1]\n'),
        ("a.csv", "source,target\na,b\nc\n"),
        ("a.csv", 'source,target\na,b\n"c,d\n'),
        ("a.csv", "source,target\na,b\n\xff,b\n"),
    ],
)
def test_a_broken_row_is_refused_alike(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, "latin-1")
    said = []
    for least in (1, 1 << 40):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError) as refused:
            patch.setattr(file_rows, "LARGE", least)
            files.read(path)
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert "line" in said[0]


def _pairs(count: int, labels: bool = False) -> list[dict[str, Any]]:
    kind = "label" if labels else "target"
    return [
        {"source": f"text {i % (count - 7)}", kind: f"{'ab'[i % 2] if labels else f'answer {i}'}"}
        for i in range(count)
    ]


def _told(count: int) -> list[dict[str, Any]]:
    def turn(role: str, text: str) -> dict[str, str]:
        return {"role": role, "content": text}

    return [
        {"messages": [turn("user", f"q{i}"), turn("assistant", f"a{i}"), turn("user", "and?"),
                      turn("assistant", f"b{i}")]}
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (_pairs(60), {}),
        (_pairs(60), {"limit": 20}),
        (_pairs(60), {"preview": 30}),
        (_pairs(60, labels=True), {}),
        (_told(40), {"loss": "replies"}),
    ],
)
def test_a_task_is_the_same_wherever_its_rows_lie(
    tmp_path: Path, large: pytest.MonkeyPatch, rows: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stored = Task.load(path, **options)
    large.setattr(file_rows, "LARGE", 1 << 40)
    plain = Task.load(path, **options)
    if not options.keys() & {"preview", "limit"}:
        assert isinstance(stored.train, StoredRows)
    for split in ("train", "validation", "test"):
        assert list(stored.split(split)) == list(plain.split(split))
        assert list(stored.pairs(split)) == list(plain.pairs(split))
    assert (stored.source, stored.notes, stored.labels) == (plain.source, plain.notes, plain.labels)
    assert pickle.loads(pickle.dumps(stored)).train[3] == plain.train[3]


def test_one_target_a_row_stays_stored_where_some_are_drawn(
    tmp_path: Path, large: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [{"source": f"a{i}", "target": f"b{i}"} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = Task.load(path).train
    some = with_pairs(train, [1, 4, 9])
    assert isinstance(some, StoredRows)
    assert list(some) == [train[i] for i in (1, 4, 9)]


def test_a_file_that_changes_meanwhile_is_refused(
    tmp_path: Path, large: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f'{{"source": "a{i}", "target": "b{i}"}}\n' for i in range(30)))
    task = Task.load(path)
    carried = pickle.dumps(task.train)
    assert task.train[0].source
    with path.open("a") as file:
        file.write('{"source": "x", "target": "y"}\n')
    for rows in (task.train, pickle.loads(carried)):
        with pytest.raises(InputError, match="has changed since it was first read"):
            rows[0]
    path.unlink()
    with pytest.raises(InputError, match="can no longer be read"):
        pickle.loads(carried)


def test_a_preview_reads_no_more_than_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], large: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.jsonl"
    rows = "".join(f'{{"source": "a{i}", "target": "b{i}"}}\n' for i in range(2000))
    path.write_text(f"{rows}this is no JSON\n")
    assert run(["tasks", "show", str(path)]) == 0
    assert "A preview" in capsys.readouterr().out
    assert run(["tasks", "show", str(path), "-o", "long=skip", "-o", "preview=50"]) == 0
    assert "no more than 50 rows" in capsys.readouterr().out
    assert run(["tasks", "show", str(path), "-o", "source=target", "-o", "target=source"]) == 0
    assert "no more than 2,000 rows" in capsys.readouterr().out
    assert run(["tasks", "show", str(path), "--whole"]) == 2
    assert "line 2001 is not valid JSON" in capsys.readouterr().err
    table = files.read(path, 3)
    assert [row["source"] for row in table.rows] == ["a0", "a1", "a2"]


def test_rows_of_a_large_parquet_file_stay_on_disk(
    tmp_path: Path, large: pytest.MonkeyPatch
) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "mine.parquet"
    columns = {"source": [f"a{i}" for i in range(40)], "target": ["b", *["c"] * 39]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    stored = Task.load(path)
    assert isinstance(stored.train, StoredRows)
    large.setattr(file_rows, "LARGE", 1 << 40)
    assert list(stored.train) == list(Task.load(path).train)
    large.setattr(file_rows, "LARGE", 1)
    (tmp_path / "damaged.parquet").write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="not a parquet file"):
        files.read(tmp_path / "damaged.parquet")
    assert [row["source"] for row in files.read(path, 2).rows] == ["a0", "a1"]
