"""The published systems' outputs with the official scorers' numbers, where they are at hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("PEFTLAB_DATA", Path(__file__).parents[3] / "shared" / "data"))


@dataclass(frozen=True)
class Case:
    """One folder of metric_cases."""

    folder: Path
    predictions: list[str]
    references: list[list[str]]
    expected: dict[str, Any]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Rows of a further jsonl file of this case; skips the test when there is none."""
        path = self.folder / name
        if not path.exists():
            pytest.skip(f"{path} is absent")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def case() -> Callable[[str], Case]:
    """Loader of a case by its folder's name."""

    def load(name: str) -> Case:
        folder = DATA / "metric_cases" / name
        if not folder.is_dir():
            pytest.skip(f"{folder} is absent; set PEFTLAB_DATA to the shared data folder")
        text = (folder / "outputs.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        return Case(
            folder,
            [row["prediction"] for row in rows],
            [row["references"] for row in rows],
            json.loads((folder / "expected.json").read_text(encoding="utf-8")),
        )

    return load
