"""A tiny base with a tokenizer in a folder, and a few rows to learn from, shared by a session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftlab.tasks import Task
from tests.models import tiny
from tests.tasks.tokenizers_for_tests import byte_level


def rows(count: int, start: int = 0) -> list[dict[str, object]]:
    """Records and sentences about numbered places."""
    return [
        {
            "source": f"name : Place {i} | food : English",
            "targets": [f"Place {i} serves English food."],
        }
        for i in range(start, start + count)
    ]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random model of 3 blocks, context 96."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = byte_level()
    model = tiny("gpt2", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (24 rows), validation.jsonl (4) and test.jsonl (6)."""
    folder = tmp_path_factory.mktemp("places")
    for split, count, start in (("train", 24, 0), ("validation", 4, 30), ("test", 6, 40)):
        lines = [json.dumps(row) for row in rows(count, start)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def task(data: Path) -> Task:
    """The task of that folder; outputs end after eight tokens."""
    return Task.load(data, max_new_tokens=8)
