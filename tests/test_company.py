"""The share of the cores that others use; readings are given: no test has a machine to itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable

import pytest

from peftlab import measure
from peftlab.measure import company, phases
from peftlab.measure.company import Company, Counters

STAT = """\
cpu  9999 9999 9999 9999 9999 9999 9999 9999 0 0
cpu0 100 20 30 4000 500 6 7 8 90 10
cpu3 200 0 0 5000 0 0 0 50
intr 12345
"""


def test_busy_is_all_but_idle_steal_included_and_guests_once() -> None:
    tick = os.sysconf("SC_CLK_TCK")
    assert company._busy_seconds(STAT) == {0: 171 / tick, 3: 250 / tick}  # core 1, 2 are offline


def shared(*moments: Counters | None) -> float | None:
    beside = Company()
    for begin, end in zip(moments[::2], moments[1::2], strict=True):
        beside.add(begin, end)
    return beside.share


def test_the_share_is_of_all_cores_that_were_given() -> None:
    assert shared(Counters(0, 2, 50, 10), Counters(10, 2, 65, 24)) == pytest.approx(0.05)
    assert shared(Counters(0, 4, 0, 0), Counters(10, 4, 30, 10)) == pytest.approx(0.5)
    two = (Counters(0, 1, 0, 0), Counters(10, 1, 10, 10), Counters(20, 1, 10, 10))
    assert shared(*two, Counters(30, 1, 15, 10)) == pytest.approx(0.25)
    assert shared(Counters(0, 1, 0, 0), Counters(10, 1, 9.9, 10)) == 0.0  # ticks are rounded


def test_what_cannot_be_known_is_none() -> None:
    assert shared(None, None) is None
    assert shared(Counters(0, 2, 0, 0), None) is None
    assert shared(Counters(0, 2, 0, 0), Counters(0.3, 2, 0.6, 0.1)) is None  # too short for ticks
    assert shared(Counters(0, 2, 0, 0), Counters(9, 2, 0, 8)) is None  # cores show nothing
    assert shared(Counters(0, 2, 0, 0), Counters(9, 1, 9, 5)) is None  # cores were taken away


def test_other_systems_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert company.counters() is None


def test_cores_that_a_container_does_not_show_are_not_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 9999}, raising=False)
    assert company.counters() is None


BURN = "import time\nwhile time.process_time() < .4: pass\nprint(flush=True); input()"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux counts")
def test_children_are_no_others_while_they_live_and_after_it() -> None:
    before = company._own_seconds()
    child = subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    alive = company._own_seconds()
    child.communicate(b"\n")
    assert alive - before >= 0.35
    assert company._own_seconds() >= alive - 0.05


def given(moments: Iterable[Counters], monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(moments)
    for module in (company, phases):
        monkeypatch.setattr(module, "counters", lambda: next(left))


def test_a_phase_inside_another_has_its_own_company(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [(0, 0, 0), (10, 10, 10), (10, 10, 10), (20, 20, 15), (20, 20, 15), (30, 31, 25)]
    given([Counters(at, 1, busy, own) for at, busy, own in moments], monkeypatch)
    with measure.phase("train", "cpu") as outer, measure.phase("evaluate", "cpu") as inner:
        pass
    assert outer.others == pytest.approx(0.05) and inner.others == pytest.approx(0.5)


def test_a_block_has_company_even_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    given([Counters(0, 1, 0, 0), Counters(10, 1, 9, 1)], monkeypatch)
    with pytest.raises(ValueError, match="its own"), measure.in_company() as beside:
        raise ValueError("its own")
    assert beside.share == pytest.approx(0.8)
