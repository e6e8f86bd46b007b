"""A grid of looks allows no more error than one test would, whatever decides which take place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftlab.verdict.components import Runs
from peftlab.verdict.looks import Grid, look_at, seeds_at
from peftlab.verdict.planning import Needed, needed_seconds
from peftlab.verdict.statistics import holm


@given(
    first=st.integers(5, 300),
    more=st.integers(0, 3000),
    target=st.none() | st.tuples(st.integers(0, 12), st.integers(0, 4)),
)
@settings(max_examples=60, deadline=None)
def test_all_looks_together_are_allowed_no_more_than_one_test(
    first: int, more: int, target: tuple[int, int] | None
) -> None:
    grid = Grid(first, first + more, target=target)
    looks = [grid.look(i, j) for i in range(80) for j in range(grid.last + 1)]
    assert sum(look.allowed for look in looks) <= 0.05 + 1e-12
    assert all(look.allowed > 0 for look in looks[:20])
    assert looks[grid.last].examples == first + more
    if target is not None and target[1] <= grid.last:
        most = max(looks, key=lambda look: look.allowed)
        assert (most.seeds_level, most.examples_level) == target and most.allowed > 0.03


def test_levels_of_seeds_rise_without_end() -> None:
    assert [seeds_at(level) for level in range(7)] == [3, 4, 5, 7, 9, 12, 15]


def test_what_comes_after_a_look_has_more_seeds_or_more_examples() -> None:
    grid = Grid(100, 300)
    after = grid.after(grid.look(0, 1))
    assert [(one.seeds, one.examples) for one in after] == [(4, 200), (3, 300)]
    assert [(one.seeds, one.examples) for one in grid.after(after[1])] == [(4, 300)]


def test_tests_that_might_have_been_made_are_corrected_for() -> None:
    p = np.array([0.001, 0.01])
    assert holm(p).tolist() == pytest.approx([0.002, 0.01])
    assert holm(p, 10).tolist() == pytest.approx([0.01, 0.09])
    noise = np.random.default_rng(0)
    scores = 0.4 + noise.normal(0, 0.1, (1, 200)) + noise.normal(0, 0.01, (3, 200))
    runs = [Runs("one", scores), Runs("other", scores + noise.normal(0.02, 0.05, (3, 200)))]
    look = Grid(200, 200).look(0, 0)
    pairs = [
        look_at(look, runs, margin=0.001, open_pairs=count).pairs[0].p_different for count in (1, 9)
    ]
    assert pairs[1] == pytest.approx(min(1.0, 9 * pairs[0]))


def test_the_cheaper_way_to_decide_is_named() -> None:
    prices = {"seeds": 30.0, "examples": 0.5}
    assert needed_seconds(Needed(4, 100), prices) == 50
    assert needed_seconds(Needed(4, None), prices) == 120
    assert needed_seconds(Needed(None, None), prices) is None
    assert needed_seconds(Needed(None, 7), {"seeds": 3.0, "examples": 0.0}) is None
