"""Own data: formats, columns, splits, references, limits, and one clear error for bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab.errors import InputError
from peftlab.tasks import Example, Options, Task, catalogue, files
from peftlab.tasks.choices import USUAL
from peftlab.tasks.task import fingerprint, limit_pairs

Rows = Sequence[Mapping[str, Any]]


def jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def numbered(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"source": f"s{i}", "target": f"t{i}"} for i in range(start, start + count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    jsonl(tmp_path / "train.jsonl", numbered(30))
    jsonl(tmp_path / "validation.jsonl", numbered(4, 100))
    jsonl(tmp_path / "test.jsonl", [*numbered(5, 200), {"source": "s3", "target": "t"}])
    return tmp_path


def test_a_folder_of_splits(folder: Path) -> None:
    task = Task.load(folder)
    assert [len(task.split(s)) for s in ("train", "validation", "test")] == [30, 4, 6]
    assert task.train[2] == Example("s2", ("t2",))
    assert task.name == folder.name and task.source.kind == "files"
    assert "Columns: source=source, target=target (guessed)." in task.notes
    assert task.duplicates == 1
    assert "1 of 6 test sources also stand in train." in task.notes
    with pytest.raises(InputError, match=r'no split "tests".*Did you mean "test"'):
        task.split("tests")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"source": 'a "quoted", text\nof two lines', "target": "ünïcode"},
        *numbered(19),
    ]
    path = tmp_path / f"data{suffix}"
    if suffix == ".jsonl":
        jsonl(path, rows)
    elif suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        comma = "," if suffix == ".csv" else "\t"
        cells = [f'"a ""quoted"", text\nof two lines"{comma}ünïcode']
        cells += [f"{row['source']}{comma}{row['target']}" for row in rows[1:]]
        path.write_text(f"source{comma}target\n" + "\n".join(cells) + "\n", encoding="utf-8")
    task = Task.load(path)
    rows_of = {
        (e.source, e.targets[0]) for s in ("train", "validation", "test") for e in task.split(s)
    }
    assert rows_of == {(row["source"], row["target"]) for row in rows}


def test_missing_splits_are_cut_by_seed(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "all.jsonl", numbered(50))
    one, same, other = (Task.load(path, seed=seed) for seed in (1, 1, 2))
    assert (len(one.train), len(one.validation), len(one.test)) == (41, 4, 5)
    assert one.source.fingerprint == same.source.fingerprint != other.source.fingerprint
    parts = [{e.source for e in one.split(s)} for s in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 50
    assert sum("cut from train by seed" in note for note in one.notes) == 2


def test_rows_of_one_source_are_one_example_and_never_leak(tmp_path: Path) -> None:
    rows = [{"text": f"s{i % 10}", "summary": f"t{i}"} for i in range(40)]
    task = Task.load(jsonl(tmp_path / "all.jsonl", rows))
    assert sum(len(task.split(s)) for s in ("train", "validation", "test")) == 10
    assert all(len(e.targets) == 4 for e in task.train)
    assert len(task.pairs("train")) == 4 * len(task.train)
    assert task.duplicates == 0
    assert any("rows of the same source are joined" in note for note in task.notes)


def test_a_chat_begins_with_the_bare_source(folder: Path) -> None:
    assert Task.load(folder, chat=True).template.text == "{instruction}{source}{target}"
    own = Task.load(folder, chat=True, template="{source}?{target}").template
    assert own.text == "{source}?{target}" and own.chat


def test_lists_of_references_and_their_pairs(tmp_path: Path) -> None:
    rows = [{"source": f"s{i}", "targets": ["a", "b", "c"]} for i in range(12)]
    task = Task.from_files(jsonl(tmp_path / "train.jsonl", rows))
    assert task.name == tmp_path.name
    assert task.train[0].targets == ("a", "b", "c")
    assert [target for _, target in task.pairs("train")[:4]] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"article": "a", "highlights": "b", "id": "1"}, "source=article, target=highlights"),
        ({"dialogue": "a", "summary": "b", "topic": "c"}, "source=dialogue, target=summary"),
        ({"Document": "a", "Summary": "b"}, "source=Document, target=Summary"),
        ({"question": "a", "answer": "b"}, "source=question, target=answer"),
        ({"instruction": "do", "input": "a", "output": "b"}, "source=instruction+input"),
        ({"prompt": "a", "response": "b"}, "source=prompt, target=response"),
        ({"text": "a", "label": "b"}, "source=text, target=label"),
    ],
)
def test_usual_columns_are_guessed(tmp_path: Path, row: dict[str, str], said: str) -> None:
    rows = [{key: f"{value}{i}" for key, value in row.items()} for i in range(9)]
    assert said in Task.load(jsonl(tmp_path / "a.jsonl", rows)).notes[0]


def test_columns_template_and_cue_can_be_given(tmp_path: Path) -> None:
    rows = [{"who": f"w{i}", "what": f"x{i}", "where": f"y{i}"} for i in range(9)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    columns = {"source": "who+what", "target": "where"}
    task = Task.load(path, columns=columns, template="{who}: {source} => {target}")
    assert task.train[0].source.split("\n")[1].startswith("x")
    assert set(task.train[0].fields) == {"who"}
    assert "(given)" in task.notes[0]
    cued = Task.load(path, columns=columns, cue="Where {exactly}?", instruction="Say it.")
    assert cued.template.text.endswith("\nWhere {{exactly}}? {target}")
    assert cued.instruction == "Say it." and cued.template.instruction == ""
    with pytest.raises(InputError, match=r"Both a template and a cue"):
        Task.load(path, columns=columns, cue="x", template="{source}{target}")


def test_alpacas_empty_input_leaves_no_line(tmp_path: Path) -> None:
    rows = [{"instruction": f"do {i}", "input": "", "output": "b"} for i in range(9)]
    task = Task.load(jsonl(tmp_path / "a.jsonl", rows))
    assert all("\n" not in example.source for example in task.train)


def test_limits(folder: Path) -> None:
    task = Task.load(folder, limit=3, seed=5)
    assert (len(task.pairs("train")), len(task.validation), len(task.test)) == (3, 3, 3)
    assert [e.source for e in task.test] == ["s200", "s201", "s202"]
    assert task.train == Task.load(folder, limit=3, seed=5).train
    assert task.train != Task.load(folder, limit=3, seed=6).train
    assert task.duplicates == 1  # counted before the limit
    assert len(Task.load(folder, limit=3, test_limit=5).test) == 5
    assert len(Task.load(folder, test_limit=2).train) == 30


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    limit=st.integers(1, 30),
    seed=st.integers(0, 9),
)
def test_a_limit_keeps_that_many_pairs_in_their_order(
    counts: list[int], limit: int, seed: int
) -> None:
    rows = [Example(f"s{i}", tuple(f"t{i}.{j}" for j in range(n))) for i, n in enumerate(counts)]
    pairs = [(r.source, t) for r in rows for t in r.targets]
    kept = [(r.source, t) for r in limit_pairs(rows, limit, seed) for t in r.targets]
    assert len(kept) == min(limit, len(pairs))
    assert [pair for pair in pairs if pair in set(kept)] == kept


def test_a_fingerprint_changes_with_any_text() -> None:
    rows = [Example("a", ("b", "c"), {"d": "e"})]
    others = [
        [Example("a", ("b",), {"d": "e"})],
        [Example("a", ("bc",), {"d": "e"})],
        [Example("ab", ("c",), {"d": "e"})],
        [Example("a", ("b", "c"), {"d": "f"})],
        [],
    ]
    prints = {fingerprint(rows, other) for other in others}
    assert len(prints | {fingerprint(rows), fingerprint([], rows)}) == 7


def test_data_is_for_recipes_only(folder: Path) -> None:
    with pytest.raises(InputError, match=r"data=x has no meaning .* load the folder itself"):
        Task.load(folder, data="x")


def test_labels_are_checked_and_scored_as_labels(tmp_path: Path) -> None:
    rows = [{"text": f"s{i}", "label": "yn"[i % 2]} for i in range(20)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    task = Task.load(path, labels=("y", "n"))
    assert task.metrics == USUAL and task.labels == ("y", "n")
    guessed = Task.load(path)
    assert guessed.labels == ("n", "y") and guessed.metrics == task.metrics
    assert "The targets are class labels: n, y (guessed from the column)." in guessed.notes
    assert Task.load(path, labels="y,n").labels == ("y", "n")
    with pytest.raises(InputError, match=r"labels is 5; names with commas"):
        Task.load(path, labels=5)
    with pytest.raises(InputError, match=r"target 'n', which is not one of the labels y, m"):
        Task.load(path, labels=("y", "m"))


def test_blank_rows_are_refused_or_left_out(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*numbered(9), {"source": " ", "target": "x"}])
    with pytest.raises(InputError, match=r"line 10: the column 'source' is empty.*drop_blank"):
        Task.load(path)
    task = Task.load(path, drop_blank=True)
    assert "1 rows of train are left out, for want of a source or a target." in task.notes


GOOD = '{"source": "a", "target": "b"}\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; at least one row was expected"),
        (b"\n \n", "is empty; at least one row was expected"),
        (GOOD.encode() + b'{"source": "a", "target"\n', "line 2 is not valid JSON: Expecting ':'"),
        (GOOD.encode() + b"\n[1]\n", "line 3 holds a list; a JSON object"),
        (GOOD.encode() + '{"source": "é'.encode("latin-1"), "line 2 is not UTF-8 (byte 0xe9"),
        (b'{"source": "a", "target": 3}\n', "line 1: the column 'target' holds the number 3;"),
        (b'{"source": "a", "target": ["x", 3.5]}\n', "'target' holds the number 3.5;"),
        (b'{"source": "a", "target": NaN}\n', "line 1: the column 'target' holds NaN;"),
        (b'{"source": null, "target": "b"}\n', "line 1: the column 'source' holds null;"),
        (b'{"source": {"a": 1}, "target": "b"}\n', "'source' holds the dict"),
        (b'{"source": "a", "target": "\\ud83d"}\n', "holds half of a surrogate pair"),
        (b'{"source": "a", "target": []}\n', "'target' is an empty list"),
        (GOOD.encode() + b'{"source": "a", "targe": "b"}\n', "line 2 has no column 'target'"),
        (b'{"foo": "a", "bar": "b"}\n', "none of them is a usual name of a source"),
        (b'{"source": "a", "bar": "b"}\n', "none of them is a usual name of a target"),
        (GOOD.encode(), "too few to cut one from"),
    ],
)
def test_bad_jsonl_is_one_clear_error(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        Task.load(path)
    assert said in str(error.value)
    assert "bad" in str(error.value) or "too few" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("source,target\na,b\nc\n", "line 3 has 1 cells; the header has 2 (source, target)"),
        ('source,target\n"a\nb",c\nd,e,f\n', "line 4 has 3 cells"),
        ('source,target\na,"b\n', "line 2 cannot be read"),
        ("source,target\na,\n", "line 2: the column 'target' is empty"),
        ("source,target\n", "is empty"),
    ],
)
def test_bad_csv_is_one_clear_error(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as error:
        Task.load(path)
    assert said in str(error.value)


def test_bad_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(InputError, match=r"not a parquet file"):
        Task.load(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"ends in '.txt'; .jsonl"):
        Task.load(tmp_path / "a.txt")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"holds no file of rows; train.jsonl"):
        Task.load(empty)
    jsonl(empty / "test.jsonl", numbered(3))
    with pytest.raises(InputError, match=r"a train split is needed"):
        Task.load(empty)
    jsonl(empty / "dev.jsonl", numbered(3))
    jsonl(empty / "validation.jsonl", numbered(3))
    with pytest.raises(InputError, match=r"both dev.jsonl and validation.jsonl for the validation"):
        Task.load(empty)


def test_a_folder_that_is_no_data_set_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    jsonl(tmp_path / "below" / "a.jsonl", numbered(3))
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    assert files.data_files(tmp_path, below=True) == [tmp_path / "below" / "a.jsonl"]
    monkeypatch.setattr("peftlab.tasks.files.MOST_FILES", 2)
    with pytest.raises(InputError, match="holds more than 2 files and folders"):
        Task.load(tmp_path)

    def scandir(folder: str) -> Iterator[Any]:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        Task.load(tmp_path)


def test_unknown_names_say_the_nearest() -> None:
    with pytest.raises(InputError, match=r'Did you mean "xsum"'):
        Task.load("xsumm")
    with pytest.raises(InputError, match=r"no task, file or folder"):
        Task.load("./nowhere/train.jsonl")
    with pytest.raises(InputError, match=r'no option .limmit..*Did you mean "limit"'):
        Task.load("demo", limmit=3)
    with pytest.raises(InputError, match=r"limit is 0"):
        Task.load("demo", limit=0)
    with pytest.raises(InputError, match=r'columns names "sauce"'):
        Options.of({"columns": {"sauce": "x"}})


def test_the_demo_and_the_recipes_are_listed_and_loaded() -> None:
    names = [entry.name for entry in catalogue()]
    assert names[0] == "demo" and {"xsum", "e2e_nlg", "webnlg_2017"} <= set(names)
    task = Task.load("demo", limit=5)
    assert len(task.train) == 5 and task.source.kind == "demo"
    assert task.template.instruction == "" and task.instruction
    with pytest.raises(InputError, match=r"data=x has no meaning for the bundled task demo"):
        Task.load("demo", data="x")
    assert len(repr(task)) < 1000


def test_a_list_column_of_parquet(tmp_path: Path) -> None:
    rows = [{"source": f"s{i}", "references": [f"t{i}", "u"]} for i in range(9)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    assert all(len(e.targets) == 2 for e in Task.load(tmp_path).train)
