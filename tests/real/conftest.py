"""Everything here needs the folder that PEFTLAB_REAL_MODEL names, and is skipped without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from peftlab.measure import tune_allocator
from tests import real_model

_HERE = Path(__file__).parent
_WHY = "PEFTLAB_REAL_MODEL names no folder with a model: make real-model FOLDER=…"


@pytest.fixture(autouse=True, scope="session")
def _memory_as_in_a_run() -> None:
    """What is freed is kept: giving it back and asking for it anew takes longer than computing."""
    tune_allocator()


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    there = (Path(real_model.FOLDER) / "config.json").is_file() if real_model.FOLDER else False
    if real_model.FOLDER and not there:
        pytest.exit(f"PEFTLAB_REAL_MODEL is {real_model.FOLDER}, which holds no model", 2)
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.real)
            if not there:
                item.add_marker(pytest.mark.skip(reason=_WHY))
