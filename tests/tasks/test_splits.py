"""Files under the names of their data sets become splits; a test set is not trained on unsaid."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from peftlab.errors import InputError
from peftlab.tasks import Task
from peftlab.tasks.splits import split_of


@pytest.fixture(autouse=True)
def _quiet_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.mark.parametrize(
    ("split", "names"),
    {
        "train": "train trainset Training train_data dart-v1.1.1-full-train dialogsum.train",
        "validation": "dev devset validation valset devel-conll dart-v1.1.1-full-dev 2triples_dev",
        "test": "test testset_w_refs testset testdata_with_lex dart-v1.1.1-full-test test-fixed",
        None: "dataset contest latest train_test_all settings devices",
    }.items(),
)
def test_names_of_splits(split: str | None, names: str) -> None:
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


def e2e(folder: Path, names: dict[str, int]) -> Path:
    folder.mkdir()
    for at, (name, count) in enumerate(names.items()):
        rows = (f'"name[Bar {at} {i}], food[Thai]",Bar {at} {i} is Thai.\n' for i in range(count))
        (folder / name).write_text("mr,ref\n" + "".join(rows))
    return folder


E2E = {"trainset.csv": 12, "devset.csv": 6, "testset_w_refs.csv": 5}


@pytest.mark.parametrize("recipe", [True, False])
def test_e2es_own_files_are_its_splits(tmp_path: Path, recipe: bool) -> None:
    folder = e2e(tmp_path / "e2e", E2E)
    (folder / "testset.csv").write_text('MR\n"name[Bar 2 1]"\n')
    columns = {"source": "mr", "target": "ref"}
    own = Task.load("e2e_nlg", data=folder) if recipe else Task.load(folder, columns=columns)
    assert [len(own.split(s)) for s in ("train", "validation", "test")] == [12, 6, 5]
    assert all(e.targets[0].startswith("Bar 2") for e in own.test)
    assert any(note.startswith("Not read, ") and "testset.csv" in note for note in own.notes)
    if recipe:
        assert own.train[0].source == "name : Bar 0 0 | food : Thai"


def test_equal_references_are_kept_as_often_as_they_are_given(tmp_path: Path) -> None:
    folder = e2e(tmp_path / "e2e", E2E)
    record = '"name[Aster], food[Thai]"'
    texts = ["Aster is Thai.", "Aster is Thai.", "Aster has Thai food.", "Thai food: Aster."]
    rows = "".join(f"{record},{text}\n" for text in texts)
    (folder / "testset_w_refs.csv").write_text("mr,ref\n" + rows)
    assert list(Task.load("e2e_nlg", data=folder).test[0].targets) == texts


def test_a_test_set_is_never_pooled_in_silence(tmp_path: Path) -> None:
    folder = e2e(tmp_path / "e2e", {"testset_w_refs.csv": 20, "devset.csv": 5})
    with pytest.raises(InputError, match=r"a train split is needed"):
        Task.load("e2e_nlg", data=folder)
    alone = Task.load(folder / "testset_w_refs.csv", columns={"source": "mr", "target": "ref"})
    assert "testset_w_refs.csv is called a test set; its rows are trained on too." in alone.notes
    inner = tmp_path / "inner"
    inner.mkdir()
    e2e(inner / "data", {"testset.csv": 20, "more.csv": 20})
    with pytest.raises(InputError, match=r"testset.csv is called a test set, and would be read"):
        Task.load(inner, columns={"source": "mr", "target": "ref"})


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    folder = e2e(tmp_path / "e2e", {"train_a.csv": 9, "train_b.csv": 9, "test.csv": 9})
    with pytest.raises(InputError, match=r"both train_a.csv and train_b.csv for the train split"):
        Task.load(folder)


def test_files_in_pieces_are_those_of_datasets(tmp_path: Path) -> None:
    for i in range(2):
        rows = [{"source": f"s{i}{j}", "target": f"t{j}"} for j in range(10)]
        path = tmp_path / f"train-0000{i}-of-00002.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert len(Task.load(tmp_path).train) == 17


def _saved(folder: Path, **splits: int) -> Path:
    parts = {
        name: datasets.Dataset.from_list(
            [{"source": f"{name}{i}", "target": f"t{i}"} for i in range(count)]
        )
        for name, count in splits.items()
    }
    datasets.DatasetDict(parts).save_to_disk(folder)
    return folder


def test_splits_of_a_data_set(tmp_path: Path) -> None:
    sft = Task.load(_saved(tmp_path / "a", train_sft=9, test_sft=5))
    assert (len(sft.train), len(sft.validation), len(sft.test)) == (8, 1, 5)
    folder = _saved(tmp_path / "b", train=30, validation_matched=5, validation_mismatched=5)
    mnli = Task.load(folder)
    assert len(mnli.train) == 25 and all(e.source.startswith("train") for e in mnli.validation)
    said = f"Splits of {folder} that are not read: validation_matched, validation_mismatched."
    assert said in mnli.notes
    only = Task.load(_saved(tmp_path / "c", test=20))
    assert any("has but one split, test: its rows are cut" in note for note in only.notes)


def test_dialogsums_own_test_file_has_three_columns_of_references(tmp_path: Path) -> None:
    for name, columns in {
        "dialogsum.train.jsonl": ["summary"],
        "dialogsum.dev.jsonl": ["summary"],
        "dialogsum.test.jsonl": ["summary1", "summary2", "summary3"],
    }.items():
        rows = [
            {"dialogue": f"#Person1#: Hi {i}.", **{c: f"A {c} of {i}." for c in columns}}
            for i in range(4)
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task.load("dialogsum", data=tmp_path)
    assert task.test[1].targets == ("A summary1 of 1.", "A summary2 of 1.", "A summary3 of 1.")


def test_dart_as_it_is_shipped(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        row = {
            "tripleset": [["Mars", "MOON", name]],
            "annotations": [{"source": "x", "text": "One."}, {"source": "x", "text": "Two."}],
        }
        (tmp_path / f"dart-v1.1.1-full-{name}.json").write_text(json.dumps([row], indent=1))
    task = Task.load("dart", data=tmp_path)
    assert task.test[0].source == "Mars : moon : test" and task.test[0].targets == ("One.", "Two.")


XML = """<benchmark><entries>
<entry category="Food" eid="Id1" size="2">
  <originaltripleset><otriple>Ajoblanco | country | Spain</otriple></originaltripleset>
  <modifiedtripleset>
    <mtriple>Ajoblanco | country | Spain</mtriple><mtriple>Ajoblanco | ingredient | Bread</mtriple>
  </modifiedtripleset>
  <lex comment="good" lid="Id1">Bread is an ingredient of Ajoblanco, from {where}.</lex>
  <lex comment="toFix" lid="Id2">Bread &amp; Ajoblanco.</lex>
</entry></entries></benchmark>"""


def test_webnlgs_own_files(tmp_path: Path) -> None:
    for name in (
        "train/1triples/1triple_allSolutions_Food_train_challenge.xml",
        "dev/2triples/2triples_Food_dev_challenge.xml",
        "test/testdata_with_lex.xml",
        "test/testdata_unseen_with_lex.xml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(XML.replace("{where}", name))
    task = Task.load("webnlg_2017", data=tmp_path)
    assert task.train[0].source == "| Ajoblanco : country : Spain | Ajoblanco : ingredient : Bread"
    assert len(task.train[0].targets) == 1, "trained on texts that are marked as good"
    assert [len(e.targets) for e in task.test] == [2], "the file with all references, and no other"
    assert task.test[0].targets[1] == "Bread & Ajoblanco."
    assert task.subsets == {"seen": (0,), "unseen": ()}


@pytest.mark.parametrize("text", ["<html><body/></html>", "<benchmark>", "<benchmark><entries/>"])
def test_other_xml_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.xml").write_text(text)
    with pytest.raises(
        InputError, match=r"train.xml is (not XML that can be read|XML, and of XML)"
    ):
        Task.load("webnlg_2017", data=tmp_path)
