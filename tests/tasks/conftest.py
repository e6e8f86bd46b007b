"""Tokenizers, made once: they are read only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.tasks.tokenizers_for_tests import KINDS, byte_level

# Time decides nothing here: other work on the machine must not fail a test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def bpe() -> Any:
    """A byte-level BPE tokenizer without BOS."""
    return byte_level()


@pytest.fixture(scope="session")
def chat_bpe() -> Any:
    """A byte-level BPE tokenizer with a chat template in ChatML's form."""
    return byte_level(chat=True)


_MADE: dict[str, Any] = {}


@pytest.fixture(params=list(KINDS))
def any_tokenizer(request: pytest.FixtureRequest) -> Any:
    """Each kind of tokenizer in turn."""
    if request.param not in _MADE:
        _MADE[request.param] = KINDS[request.param]()
    return _MADE[request.param]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data sets beside the repository, where they are."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("PEFTLAB_DATA", beside))
    if not (folder / "e2e").is_dir():
        pytest.skip(f"no data sets in {folder} (set PEFTLAB_DATA)")
    return folder
