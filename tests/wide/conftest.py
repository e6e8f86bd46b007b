"""Foreign programs: they live in an environment of their own, whose Python PEFTLAB_WIDE names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
PYTHON = os.environ.get("PEFTLAB_WIDE", "")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    if PYTHON and not Path(PYTHON).is_file():
        pytest.exit(f"PEFTLAB_WIDE is {PYTHON}, which is no Python", 2)
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.wide)
            if not PYTHON:
                item.add_marker(pytest.mark.skip(reason="make test-wide makes what it needs"))
