"""Every bundled recipe, proven on a few invented rows in its hub data set's layout."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import pytest

from peftlab.errors import InputError
from peftlab.tasks import Example, Task, linearise, recipe, sources
from peftlab.tasks.choices import USUAL
from peftlab.tasks.rows import StoredRows

SPLITS = ("train", "validation", "test")


def plain(source: str, target: str) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [
            {"id": f"{split}{i}", source: f"The {split} text {i}.", target: f"Sum {i}."}
            for i in range(2)
        ]
        for split in SPLITS
    }


def webnlg_row(triples: list[str], texts: dict[str, str], category: str, where: str = "") -> Any:
    return {
        "category": category,
        "modified_triple_sets": {"mtriple_set": [triples]},
        "lex": {"comment": list(texts.values()), "text": list(texts)},
        "test_category": where,
    }


E2E_RECORD = (
    "name[The Vaults], eatType[pub], priceRange[more than £30], customer rating[5 out of 5]"
)
LEX = {"A is in B.": "good", "In B is A.": "good", "A B": "toFix"}
ROWS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "xsum": plain("document", "summary"),
    "cnn_dailymail": plain("article", "highlights"),
    "samsum": plain("dialogue", "summary"),
    "gigaword": plain("document", "summary"),
    "dialogsum": {
        "train": plain("dialogue", "summary")["train"],
        "validation": plain("dialogue", "summary")["validation"],
        "test": [
            {"id": f"test_0_{i}", "dialogue": "#Person1#: Hi.", "summary": f"A greeting {i}."}
            for i in range(3)
        ],
    },
    "scitldr": {
        split: [
            {"source": [f"One {split}.", "Two."], "target": ["T.", "U."][: 1 + (split == "test")]},
        ]
        for split in SPLITS
    },
    "e2e_nlg": {
        split: [
            {"meaning_representation": f"{E2E_RECORD}, near[{split}]", "human_reference": text}
            for text in ("A pub.", "It is a pub.")
        ]
        for split in SPLITS
    },
    "dart": {
        split: [
            {
                "tripleset": [["Mars", "Moon OF", split], ["[TABLECONTEXT]", "TITLE", "Planets"]],
                "subtree_was_extended": False,
                "annotations": {"source": ["x", "y"], "text": ["One.", "Two."]},
            }
        ]
        for split in SPLITS
    },
    "webnlg_2017": {
        "train": [
            webnlg_row(["Aarhus_Airport | cityServed | Aarhus", "A | b | c"], LEX, "Airport"),
            webnlg_row(["D | e | f"], {"Bad.": "toFix"}, "Food"),
        ],
        "dev": [webnlg_row(["G | h | i"], LEX, "Food")],
        "test": [
            webnlg_row(["J | k | l"], {"": ""}, "Food", "testdata_no_lex"),
            webnlg_row(["M | n | o"], LEX, "Artist", "testdata_unseen_with_lex"),
            webnlg_row(["J | k | l"], LEX, "Food", "testdata_with_lex"),
            webnlg_row(["M | n | o"], LEX, "Artist", "testdata_with_lex"),
        ],
    },
}

SOURCES = {
    "e2e_nlg": "name : The Vaults | Type : pub | price : more than £30"
    " | customer rating : 5 out of 5 | near : train",
    "dart": "Mars : moon of : train | [TABLECONTEXT] : title : Planets",
    "webnlg_2017": "| Aarhus_Airport : cityServed : Aarhus | A : b : c",
    "scitldr": "One train. Two.",
    "xsum": "The train text 0.",
}


@pytest.fixture(autouse=True)
def _quiet_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def saved(name: str, folder: Path) -> Path:
    splits = {split: datasets.Dataset.from_list(rows) for split, rows in ROWS[name].items()}
    datasets.DatasetDict(splits).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("name", sorted(recipe.bundled()))
def test_a_recipe_reads_its_hub_layout(name: str, tmp_path: Path) -> None:
    task = Task.load(name, data=saved(name, tmp_path / "saved"))
    assert task.name == name and task.source.kind == "files"
    assert task.train[0].source == SOURCES.get(name, task.train[0].source)
    assert all(e.source and e.targets for s in SPLITS for e in task.split(s))
    published = recipe.read(recipe.bundled()[name])
    assert task.metrics == published.metrics and task.decoding == published.decoding
    assert set(published.sizes) == set(SPLITS)


def test_every_recipe_has_a_test_of_its_layout() -> None:
    assert set(ROWS) == set(recipe.bundled())


def test_the_metrics_of_the_recipes_exist() -> None:
    registry = pytest.importorskip("peftlab.metrics.registry")
    known = {spec.name for spec in registry.metric_specs()}
    for name, path in recipe.bundled().items():
        assert set(recipe.read(path).metrics) <= known, name


def test_e2e_groups_the_references_of_a_record(tmp_path: Path) -> None:
    task = Task.load("e2e_nlg", data=saved("e2e_nlg", tmp_path))
    assert [len(task.split(s)) for s in SPLITS] == [1, 1, 1]
    assert task.test[0].targets == ("A pub.", "It is a pub.")


def test_dialogsum_has_three_references_in_test(tmp_path: Path) -> None:
    task = Task.load("dialogsum", data=saved("dialogsum", tmp_path))
    assert [len(e.targets) for e in task.test] == [3]


def test_webnlg_trains_on_good_texts_and_tests_on_the_file_with_all(tmp_path: Path) -> None:
    folder = saved("webnlg_2017", tmp_path)
    task = Task.load("webnlg_2017", data=folder)
    assert [e.targets for e in task.train] == [("A is in B.", "In B is A.")]
    assert [e.source for e in task.test] == ["| J : k : l", "| M : n : o"]
    assert all(len(e.targets) == 3 for e in task.test)
    assert task.subsets == {"seen": (0,), "unseen": (1,)}
    unseen = Task.load("webnlg_2017:unseen", data=folder)
    assert unseen.name == "webnlg_2017:unseen" and len(unseen.test) == 1
    assert Task.load("webnlg_2017", data=folder, test_limit=1).subsets["unseen"] == ()
    with pytest.raises(InputError, match=r'no subset "unsen".*Did you mean "unseen"'):
        Task.load("webnlg_2017:unsen", data=folder)


def test_table_rows_are_those_of_the_prefix_tuning_code(bpe: Any) -> None:
    """`' {} {} '.format(src, bos_tok) + tgt`, where webnlg's src begins with `' | '`."""
    text = recipe.read(recipe.bundled()["webnlg_2017"]).template
    from peftlab.tasks import Template

    source = linearise.webnlg({"mtriple_set": [["S | p | o", "T | q | r"]]})
    row = Template(text).encode(bpe, Example(source, ("It is.",)), "It is.", 1000)
    src = " | S : p : o" + " | T : q : r"
    assert bpe.decode(row.ids) == f" {src} <|endoftext|> It is.<|endoftext|>"


def test_records_that_are_none_are_refused(tmp_path: Path) -> None:
    for broken in ("name Blue Spice", "name[a], eatType", "", "[a]"):
        with pytest.raises(ValueError, match=r"is not a slot|empty"):
            linearise.e2e(broken)
    assert linearise.e2e("familyFriendly[yes], name[A, B]") == "family friendly : yes | name : A, B"
    for triples in ([["a", "b"]], []):
        with pytest.raises(ValueError, match=r"not a triple|no triples"):
            linearise.dart(triples)
    rows = {"meaning_representation": ["oh"] * 9, "human_reference": ["x"] * 9}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path)
    with pytest.raises(InputError, match=r'row 1: .* the form "e2e" expects: .oh. is not a slot'):
        Task.load("e2e_nlg", data=tmp_path)


def test_a_layout_that_is_not_the_hubs_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"documents": ["a"] * 9, "summary": ["b"] * 9}).save_to_disk(
        tmp_path
    )
    with pytest.raises(InputError, match=r"no column 'document'.*Did you mean \"documents\""):
        Task.load("xsum", data=tmp_path)
    mended = Task.load("xsum", data=tmp_path, columns={"source": "documents"}, drop_blank=True)
    assert mended.train[0].source == "a"
    with pytest.raises(InputError, match=r"There is no folder"):
        Task.load("xsum", data=tmp_path / "nowhere")


def test_options_go_before_a_recipe(tmp_path: Path) -> None:
    task = Task.load(
        "cnn_dailymail",
        data=saved("cnn_dailymail", tmp_path),
        source_tokens=128,
        max_new_tokens=64,
        template="{id} {source} {target}",
        metrics=("rouge1",),
    )
    assert task.template.source_tokens == 128 and task.max_new_tokens == 64
    assert task.metrics == ("rouge1",) and task.train[0].fields == {"id": "train0"}


MINE = """
name: mine
title: My own
data: rows
source: {column: document}
target: {column: summary}
template: "{source}\\n=> {target}"
metrics: [rouge1]
max_new_tokens: 9
"""


def test_a_recipe_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    saved("xsum", tmp_path / "rows")
    task = Task.load(tmp_path / "mine.yaml")
    assert task.name == "mine" and task.max_new_tokens == 9 and len(task.train) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("metrics: [rouge1]", "metrics: []"), "metrics: Tuple should have at least 1 item"),
        (("max_new_tokens: 9", "max_tokens: 9"), "max_new_tokens: Field required"),
        (("data: rows", ""), "exactly one of hub and data must be given"),
        (("document}", "document, form: e3e}"), "source.form is 'e3e'; 'text'"),
        (("title: My own", "title: [My own"), "is not valid YAML"),
        ((MINE, ""), "cannot be used"),
    ],
)
def test_a_broken_recipe_lists_what_is_wrong(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    (tmp_path / "mine.yaml").write_text(MINE.replace(*change))
    with pytest.raises(InputError) as error:
        Task.load(tmp_path / "mine.yaml")
    assert said in str(error.value)


def test_a_folder_in_the_layout_of_a_hub_repository(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "data"
    folder.mkdir(parents=True)
    for split, rows in ROWS["xsum"].items():
        datasets.Dataset.from_list(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    own = Task.load(tmp_path / "repository")
    assert "source=document, target=summary (guessed)" in own.notes[0]
    assert list(Task.load("xsum", data=tmp_path / "repository").test) == list(own.test)


def test_class_labels_become_their_names(tmp_path: Path) -> None:
    rows = {"text": [f"s{i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path)
    task = Task.load(tmp_path)
    assert task.labels == ("no", "yes") and task.metrics == USUAL
    assert {e.targets[0] for e in task.train} == {"no", "yes"}


def test_the_hub_is_asked_for_what_the_recipe_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: Any, **rest: Any) -> datasets.DatasetDict:
        asked.append((name, config, rest["revision"], rest["data_files"]))
        rows = ROWS["xsum" if name == "parquet" else "cnn_dailymail"]
        return datasets.DatasetDict({s: datasets.Dataset.from_list(r) for s, r in rows.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = Task.load("cnn_dailymail")
    assert asked.pop() == ("abisee/cnn_dailymail", "3.0.0", None, None)
    assert task.source.kind == "hub" and task.source.config == "3.0.0"
    assert "train has 2 rows here; 287113 are published." in task.notes
    Task.load("xsum")
    root = "hf://datasets/EdinburghNLP/xsum@refs/convert/parquet/default"
    assert asked.pop()[3] == {split: f"{root}/{split}/*.parquet" for split in SPLITS}
    Task.load("someone/something", config="c", revision="r")
    assert asked.pop() == ("someone/something", "c", "r", None)


def test_what_the_hub_does_not_have_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("Couldn't find any data file\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"someone/x could not be loaded: .*any data file. Check"):
        Task.load("someone/x")


def test_parquet_copies_are_named_by_the_hubs_splits() -> None:
    hub = recipe.Hub(id="a/b", parquet_copy=True, splits={"validation": "dev"})
    assert hub.parquet_splits() == {"train": "train", "validation": "dev", "test": "test"}
    assert sources.PARQUET_BRANCH == "refs/convert/parquet"


def test_rows_of_a_data_set_stay_there(tmp_path: Path) -> None:
    task = Task.load("xsum", data=saved("xsum", tmp_path))
    assert isinstance(task.train, StoredRows)
    assert list(task.train) == [task.train[0], task.train[1]] == list(task.train[:])
    assert [pair[1] for pair in task.pairs("train")] == ["Sum 0.", "Sum 1."]
    again = pickle.loads(pickle.dumps(task))
    assert list(again.test) == list(task.test)


def test_blank_rows_of_a_data_set_are_left_out(tmp_path: Path) -> None:
    documents = ["a", "", None, "b", "c", " ", *(f"d{i}" for i in range(30))]
    rows = {"document": documents, "summary": [f"t{i}" for i in range(36)]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path)
    task = Task.load("xsum", data=tmp_path, seed=3)
    assert "3 rows of train are left out, for want of a source or a target." in task.notes
    pairs = [(e.source, *e.targets) for s in SPLITS for e in task.split(s)]
    expected = [(d, t) for d, t in zip(documents, rows["summary"], strict=True) if d and d.strip()]
    assert sorted(pairs) == sorted(expected)
    assert len(task.train) == 27 and list(task.train)[5] == task.train[5]
    few = Task.load("xsum", data=tmp_path, seed=3, limit=4)
    assert len(few.train) == 4 and set(few.train) <= set(task.train)


def test_real_records_become_the_papers_lines(data_folder: Path) -> None:
    columns = {"source": "source", "target": "targets"}
    task = Task.load("e2e_nlg", data=data_folder / "e2e", columns=columns)
    assert [len(task.split(s)) for s in SPLITS] == [4862, 547, 630]
    assert len(task.pairs("test")) == 4693
    assert task.test[0].source == "name : Blue Spice | Type : coffee shop | area : city centre"
    raw = Task.load(data_folder / "e2e")
    slots = {"name", "Type", "food", "price", "customer rating", "area", "family friendly", "near"}
    for line, record in zip(task.test, raw.test, strict=True):
        pairs = [slot.split(" : ") for slot in line.source.split(" | ")]
        assert {name for name, _ in pairs} <= slots and all(len(pair) == 2 for pair in pairs)
        assert len(pairs) == record.source.count("[")


def test_real_references_are_as_many_as_there_are(data_folder: Path, tmp_path: Path) -> None:
    """E2E's own csv has a reference a row; 116 stand there twice, and NIST and CIDEr count both."""
    for ours, theirs in (
        ("test", "trainset"),
        ("validation", "devset"),
        ("test", "testset_w_refs"),
    ):
        with (tmp_path / f"{theirs}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["mr", "ref"])
            for line in (data_folder / "e2e" / f"{ours}.jsonl").read_text().split("\n")[:-1]:
                row = json.loads(line)
                rows.writerows([row["source"], text] for text in row["targets"])
    task = Task.load("e2e_nlg", data=tmp_path)
    assert len(task.pairs("test")) == len(task.pairs("train")) == 4693
    assert sum(len(e.targets) - len(set(e.targets)) for e in task.test) == 116


# Lines of data/e2e/{valid,test}.txt of github.com/microsoft/LoRA, with the data set's records.
LORA_E2E = {
    "name[Alimentum], area[city centre], familyFriendly[no], near[Burger King]": (
        "name : Alimentum | area : city centre | family friendly : no | near : Burger King"
    ),
    "name[Blue Spice], eatType[coffee shop], customer rating[5 out of 5], "
    "near[Crowne Plaza Hotel]": (
        "name : Blue Spice | Type : coffee shop | customer rating : 5 out of 5 | "
        "near : Crowne Plaza Hotel"
    ),
    "name[Blue Spice], eatType[pub], food[Chinese], area[city centre], familyFriendly[no], "
    "near[Rainbow Vegetarian Café]": (
        "name : Blue Spice | Type : pub | food : Chinese | area : city centre | "
        "family friendly : no | near : Rainbow Vegetarian Café"
    ),
    "name[The Cricketers], eatType[restaurant], food[Chinese], priceRange[more than £30], "
    "customer rating[high], area[riverside], familyFriendly[yes], near[All Bar One]": (
        "name : The Cricketers | Type : restaurant | food : Chinese | price : more than £ 30 | "
        "customer rating : high | area : riverside | family friendly : yes | near : All Bar One"
    ),
    "name[The Eagle], eatType[coffee shop], food[Chinese], priceRange[£20-25], "
    "customer rating[high], area[riverside], familyFriendly[no], near[Burger King]": (
        "name : The Eagle | Type : coffee shop | food : Chinese | price : £ 20 - 25 | "
        "customer rating : high | area : riverside | family friendly : no | near : Burger King"
    ),
}
THEIR_PRICES = {"£ 20 - 25": "£20-25", "£ 30": "£30", "£ 20": "£20"}


@pytest.mark.parametrize("record", LORA_E2E)
def test_e2es_records_are_loras_lines_but_for_prices(record: str) -> None:
    """What differs stands in docs/experiments.md, and nothing else does."""
    theirs = LORA_E2E[record]
    for price, ours in THEIR_PRICES.items():
        theirs = theirs.replace(price, ours)
    assert linearise.e2e(record) == theirs
