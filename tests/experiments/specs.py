"""What experiments are proven on: data sets saved as on the hub, and tiny bases for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from tests.models import tiny
from tests.tasks.test_recipes import ROWS
from tests.tasks.tokenizers_for_tests import byte_level


def save_data(folder: Path, *names: str) -> Path:
    """A folder with the invented rows of some recipes, saved by `datasets`, by name."""
    for name in names:
        splits = {split: datasets.Dataset.from_list(rows) for split, rows in ROWS[name].items()}
        datasets.DatasetDict(splits).save_to_disk(folder / name)
    return folder


def save_base(folder: Path, seed: int = 0, **changes: Any) -> str:
    """The folder of a random GPT-2 of 3 blocks, width 128, context 512."""
    tokenizer = byte_level()
    wide = {"hidden_size": 128, "max_position_embeddings": 512, **changes}
    model = tiny(
        "gpt2",
        seed,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        **wide,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
