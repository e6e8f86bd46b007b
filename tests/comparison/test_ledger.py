"""Every moment of a run is entered once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from peftlab.comparison.ledger import Ledger
from peftlab.records.record import Seconds


@dataclass
class Took:
    """Of a training."""

    seconds: float = 3.0
    validation_seconds: float = 1.0
    saving_seconds: float = 0.5
    earlier_seconds: float = 0.0


@pytest.mark.parametrize("earlier", [0.0, 2.5])
def test_what_is_entered_adds_up(monkeypatch: pytest.MonkeyPatch, earlier: float) -> None:
    """An earlier process may have done part of the training; the times of its steps count too."""
    now = iter([0.0, 2.0, 8.0, 9.0, 10.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    ledger, seconds = Ledger(), Seconds()
    ledger.went_to("load")
    ledger.trained(Took(earlier_seconds=earlier), 5.0)  # type: ignore[arg-type]
    ledger.went_to("evaluate", 0.75)
    ledger.close(seconds)
    assert seconds.load == 2.0 and seconds.train == 3.0 and seconds.validation == 1.0
    assert seconds.prepare == 5.0 + earlier - 4.5
    assert seconds.measure == 1.25  # of six seconds of training five were its own, and so on
    assert seconds.save == 1.5
    assert seconds.total == 10.0 + earlier
    parts = seconds.model_dump(exclude={"total", "step", "train_again"}, exclude_none=True)
    assert sum(parts.values()) == seconds.total
