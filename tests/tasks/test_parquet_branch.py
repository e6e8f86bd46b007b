"""Recipes whose repository is a loading script read the hub's parquet copy of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from peftlab.errors import InputError
from peftlab.tasks import Task
from peftlab.tasks.recipe import Hub, bundled, read
from tests.tasks.test_recipes import ROWS, saved


def _hub(name: str) -> Hub:
    hub = read(bundled()[name]).hub
    assert hub is not None
    return hub


COPIES = [name for name in bundled() if _hub(name).parquet_copy]


@pytest.fixture
def branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for hf://datasets, and `datasets` reading there instead."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    load, folder = datasets.load_dataset, tmp_path / "hub"

    def from_folder(name: str, *rest: Any, data_files: Any = None, **more: Any) -> Any:
        assert name == "parquet", "a loading script would have been run"
        moved = {k: v.replace("hf://datasets", str(folder)) for k, v in data_files.items()}
        return load(name, *rest, data_files=moved, **more)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)
    return folder


def _write(folder: Path, name: str, parts: int = 1) -> None:
    """The rows of a recipe as the hub lays them out: REPO@refs/convert/parquet/CONFIG/SPLIT/."""
    hub = _hub(name)
    root = folder / f"{hub.id}@refs/convert/parquet" / (hub.config or "default")
    for split, rows in ROWS[name].items():
        (root / split).mkdir(parents=True)
        whole = datasets.Dataset.from_list(rows)
        count = min(parts, len(rows))
        for i in range(count):
            part = whole.shard(count, i, contiguous=True)
            part.to_parquet(root / split / f"{i:04d}.parquet")


@pytest.mark.parametrize("name", COPIES)
def test_the_copy_gives_the_rows_of_the_layout(name: str, branch: Path, tmp_path: Path) -> None:
    _write(branch, name, parts=2)
    task = Task.load(name)
    assert task.source.kind == "hub" and task.source.location == _hub(name).id
    same = Task.load(name, data=saved(name, tmp_path / "saved"))
    for split in ("train", "validation", "test"):
        assert list(task.split(split)) == list(same.split(split))
    assert any("are published" in note for note in task.notes), "sizes are compared"


def test_a_copy_that_is_not_there_is_one_clear_error(branch: Path) -> None:
    with pytest.raises(InputError, match=r"EdinburghNLP/xsum could not be loaded.*data="):
        Task.load("xsum")


def test_there_are_copies() -> None:
    assert {"xsum", "dart", "e2e_nlg", "webnlg_2017"} <= set(COPIES)
