"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_times_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What others do on the machine decides nothing here; tests of that say what others do."""
    monkeypatch.setattr("peftlab.measure.company.MOST", 1.0)
    yield
