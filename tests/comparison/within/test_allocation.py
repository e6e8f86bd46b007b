"""What is measured next: what is out gets nothing, what is open gets more, and time is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from peftlab.comparison.within.allocation import Allocation, Problem
from peftlab.comparison.within.screening import Screened
from peftlab.comparison.within.sizes import first_examples, whole_length
from peftlab.comparison.within.steps import Candidate, Read, Step, Train
from peftlab.verdict.looks import Grid
from peftlab.verdict.statistics import Pair
from tests.comparison.within.simulation import (
    RATES,
    STEPS,
    WHOLE,
    Ground,
    allocated,
    counted,
    follow,
)
from tests.verdict import simulation as known


def world(gaps: list[float], deviation: float = 0.003) -> known.World:
    return known.World([deviation] * len(gaps), gaps=gaps)


class Watched(Ground):
    """Remembers its steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.steps: list[Step] = []

    def do(self, step: Step) -> Any:
        assert self.cost(step) <= self.left() + 1e-9, "nothing is begun that does not fit"
        self.steps.append(step)
        return super().do(step)


def test_a_clear_winner_is_found_and_the_rest_of_the_time_is_kept() -> None:
    ground = Watched(world([0.05, 0.0, 0.0]), 100.0)
    allocation = allocated(ground)
    assert allocation.leader == "method 0" and allocation.ended == "decided"
    assert not allocation.open_pairs()
    assert all(allocation.standing("method 0", f"method {i}") == "better" for i in (1, 2))
    assert ground.used < 60


def test_no_seed_that_chose_is_read_and_every_training_has_one_length() -> None:
    ground = Watched(world([0.05, 0.04, 0.0, 0.0]), 40.0)
    allocated(ground)
    reads = [step for step in ground.steps if isinstance(step, Read)]
    assert {read.seed for read in reads} >= {1, 2, 3} and 0 not in {read.seed for read in reads}
    assert {read.steps for read in reads} == {STEPS}
    trains = [step for step in ground.steps if isinstance(step, Train)]
    assert ground.steps[: len(trains)] == trains, "screening ends before the test split is read"
    assert [step.rate for step in trains[:4]] == [RATES[0]] * 4, "the likeliest rates come first"


def test_methods_far_behind_by_validation_get_no_seeds() -> None:
    ground = Watched(world([0.1, 0.09, -0.2, -0.2, -0.2, -0.2]), 60.0)
    allocation = allocated(ground)
    assert set(allocation.finalists) == {"method 0", "method 1"}
    assert {step.method for step in ground.steps if isinstance(step, Read)} == {
        "method 0", "method 1",
    }  # fmt: skip
    assert len(allocation.screened.out) == 4
    assert all("validation loss" in why for why in allocation.screened.out.values())


def test_only_open_pairs_are_bought_more() -> None:
    ground = Watched(world([0.05, 0.045, 0.0]), 60.0)
    allocation = allocated(ground, margin=1e-4)
    assert allocation.ended == "time" and allocation.open_pairs()
    seeds = {
        name: max(
            step.seed for step in ground.steps if isinstance(step, Read) and step.method == name
        )
        for name in allocation.finalists
    }
    assert seeds["method 0"] == seeds["method 1"] > 5
    assert seeds.get("method 2", 0) < seeds["method 0"]


def test_methods_that_are_alike_are_tied_where_the_margin_is_wide() -> None:
    allocation = allocated(Watched(world([0.0, 0.0], 0.002), 120.0), margin=0.03)
    assert allocation.standing("method 0", "method 1") == "tied"
    assert allocation.ended == "decided"


def test_a_failing_method_leaves_and_the_others_go_on() -> None:
    class Failing(Watched):
        def do(self, step: Step) -> Any:
            answer = super().do(step)
            broken = step.method == "method 1" and (isinstance(step, Read) or step.rate > 1)
            return None if broken else answer

    allocation = allocated(Failing(world([0.05, 0.045, 0.0]), 60.0))
    assert "method 1" not in allocation.finalists and "method 1" in allocation.started
    assert allocation.screened.out["method 1"] == "a training of it failed"
    assert allocation.standing("method 0", "method 2") == "better"


def test_a_time_too_short_for_all_does_what_fits() -> None:
    ground = Watched(world([0.1, 0.0, 0.0, 0.0]), 0.3)
    allocation = allocated(ground)
    assert ground.used <= 0.3 and allocation.ended == "time" and allocation.seen is None
    assert allocation.screened.out or len(allocation.screened.losses) < 4


def test_what_is_not_trained_is_read_and_compared() -> None:
    ground = Ground(world([0.05, 0.0, -0.2]), 60.0)
    names = [Candidate(n, RATES) for n in ("method 0", "method 1")]
    problem = Problem(
        candidates=(*names, Candidate("method 2", (), seeded=False)),
        steps=STEPS,
        grid=Grid(WHOLE, WHOLE),
        margin=0.01,
    )
    allocation = Allocation(problem)
    steps: list[Step] = []
    follow(allocation.steps(ground), lambda step: (steps.append(step), ground.do(step))[1])
    assert [step for step in steps if step.method == "method 2"] == [
        Read("method 2", None, STEPS, 0, WHOLE)
    ]
    assert allocation.standing("method 0", "method 2") == "better"


def _of(candidates: list[Candidate], first: int = WHOLE) -> Problem:
    return Problem(candidates=tuple(candidates), steps=STEPS, grid=Grid(first, WHOLE), margin=0.001)


def test_two_prompts_are_not_bought_seeds_that_they_do_not_have() -> None:
    """Nothing in them is random: they are read to the last example, and that is all there is."""
    ground = Watched(world([0.001, 0.0]), 50.0)
    prompts = [Candidate(name, (), seeded=False) for name in ground.scores]
    allocation = Allocation(_of(prompts, first=50))
    follow(allocation.steps(ground), ground.do)
    reads = [step for step in ground.steps if isinstance(step, Read)]
    assert {(step.seed, step.steps) for step in reads} == {(0, STEPS)}
    assert len(ground.steps) <= 2 * 5 and allocation.ended in ("time", "decided")
    assert allocation.grid.target == (0, allocation.grid.last)


def test_a_method_that_never_learns_is_out_and_the_rest_goes_on() -> None:
    class Broken(Watched):
        def do(self, step: Step) -> Any:
            answer = super().do(step)
            return None if step.method == "method 2" else answer

    allocation = allocated(Broken(world([0.05, 0.0, 0.0]), 60.0))
    assert allocation.screened.out["method 2"] == "no training of it came to a finite loss"
    assert allocation.standing("method 0", "method 1") == "better"
    broken = Broken(world([0.0, 0.0, 0.0]), 60.0)
    broken.do = lambda step: None  # type: ignore[method-assign]
    nothing = allocated(broken)
    assert nothing.ended == "time" and not nothing.finalists and nothing.leader is None


def test_who_missed_a_look_is_brought_to_it_when_there_is_more_time() -> None:
    class Slow(Watched):
        slow = True

        def cost(self, step: Step) -> float:
            missing = isinstance(step, Read) and (step.method, step.seed) == ("method 2", 3)
            return super().cost(step) + (1000.0 if missing and self.slow and self.read else 0)

    ground = Slow(world([0.05, 0.0, 0.0]), 20.0)
    first = allocated(ground)
    assert first.ended == "time" and first.open_pairs() == ["method 2"]
    assert first.standing("method 0", "method 1") == "better"
    ground.slow = False
    again = Allocation(first.problem)
    assert first.grid.target is not None
    again.resume(first.started, first.rates, first.grid.target, first.path, STEPS)
    follow(again.steps(ground), ground.do)
    assert again.standing("method 0", "method 2") == "better" and again.ended == "decided"
    brought = again.path[len(first.path)]
    assert brought == (*first.path[-1][:2], ["method 0", "method 2"]), (first.path, again.path)


def test_where_time_ends_inside_a_rung_equal_lengths_are_ranked() -> None:
    """The longer training of the worse method has the lower loss: it says nothing of the other."""
    screened = Screened()
    for method, steps, loss in (("good", 50, 1.0), ("bad", 50, 1.1), ("bad", 100, 0.9)):
        screened.add(Train(method, 1.0, steps), loss)
    assert screened.ranked() == ["good", "bad"] and screened.loss("bad") == 1.1
    screened.add(Train("good", 0.3, 100), 0.8)
    assert screened.loss("good") == 0.8 and screened.loss("bad") == 0.9
    assert screened.rate("good") == 0.3
    screened.add(Train("good", 1.0, 200), None)
    assert screened.loss("good") == 0.8, "nobody else has been there"


def test_finalists_are_trained_as_long_as_their_first_look_has_time_for() -> None:
    """Screening has taken three times what was predicted: the rest is for three shorter seeds."""

    class Slower(Watched):
        def cost(self, step: Step) -> float:
            known = any(isinstance(one, Train) for one in self.steps)
            return super().cost(step) * (3.0 if known else 1.0)

    ground = Slower(world([0.05, 0.0, -0.2, -0.2]), 22.0)
    allocation = allocated(ground)
    reads = [step for step in ground.steps if isinstance(step, Read)]
    (length,) = {read.steps for read in reads}
    assert STEPS / 3 <= length < STEPS and length == allocation.trained
    assert allocation.path and allocation.standing("method 0", "method 1") == "better"
    again = Allocation(allocation.problem, trained=length)
    again.steps(ground)
    assert again.trained == length, "trainings that there are count"


def test_a_rival_too_dear_does_not_keep_others_from_being_decided() -> None:
    class Dear(Watched):
        def cost(self, step: Step) -> float:
            fresh = isinstance(step, Read) and step.seed > 3 and step.method == "method 1"
            return super().cost(step) + (1000.0 if fresh else 0.0)

    ground = Dear(world([0.02, 0.0, 0.012], 0.004), 60.0)
    allocation = allocated(ground, margin=1e-4)
    seeds = {name: max(own) for name, own in allocation.scores.items()}
    assert seeds["method 1"] == 3 and seeds["method 0"] == seeds["method 2"] > 3


def test_who_arrives_in_time_is_looked_at_without_the_others() -> None:
    """A third finalist turns out to take far longer than it was said to."""

    class Slow(Watched):
        def cost(self, step: Step) -> float:
            late = isinstance(step, Read) and step.method == "method 1" and self.used > 6
            return super().cost(step) + (1000.0 if late else 0.0)

    allocation = allocated(Slow(world([0.05, 0.04, 0.0]), 22.0))
    assert allocation.seen is not None and allocation.path[0][2] == ["method 0", "method 2"]
    assert allocation.standing("method 0", "method 2") == "better"
    assert allocation.open_pairs() == ["method 1"] and allocation.ended == "time"


def test_decided_pairs_do_not_shorten_the_correction_of_open_ones() -> None:
    """The two that are far apart take the first rank, and the open pair still counts three."""
    allocation = Allocation(_of([Candidate(f"m{i}", RATES) for i in range(3)]))
    allocation.started = ["m0", "m1", "m2"]
    assert allocation._still_open(["m0", "m1", "m2"]) == 3
    look = allocation.grid.look(0, 0)
    pair = replace(_tested("m0", "m2"), outcome="better")
    allocation.looked["m0", "m2"] = (pair, look)
    assert allocation._still_open(["m0", "m1", "m2"]) == 3
    assert allocation._still_open(["m0", "m1"]) == 2


def _tested(first: str, second: str) -> Pair:
    return Pair(
        first=first, second=second, difference=0.1, low=0.0, high=0.2, p_different=0.01,
        p_equivalent=1.0, scope="methods", outcome="undecided", among_models=None, leader=first,
        winner=None,
    )  # fmt: skip


def test_it_goes_on_where_it_was_left() -> None:
    """With more time nothing that was measured is measured again, and the looks stay theirs."""
    made = world([0.05, 0.04, 0.035])
    short, whole = Ground(made, 18.0, seed=3), Ground(made, 60.0, seed=3)
    first = allocated(short)
    target = first.grid.target
    assert first.ended == "time" and target is not None
    whole.trained, whole.read, whole.used = dict(short.trained), dict(short.read), short.used
    again = Allocation(first.problem)
    again.resume(first.started, first.rates, target, first.path, STEPS)
    begun = whole.used
    follow(again.steps(whole), whole.do)
    assert again.grid == first.grid and again.seen is not None
    assert again.path[: len(first.path)] == first.path and len(again.path) > len(first.path)
    assert whole.used > begun
    for pair, (decided, look) in first.decided.items():
        assert again.decided[pair][1] == look and again.decided[pair][0].outcome == decided.outcome


def test_the_length_follows_from_the_time() -> None:
    ground = Ground(world([0.0] * 5), 30.0)
    candidates = [Candidate(name, RATES) for name in ground.scores]

    def length(time: float) -> int:
        own = replace(ground, time=time)
        own.cost = lambda step: getattr(step, "steps", 0) / STEPS  # type: ignore[method-assign]
        return whole_length(candidates, STEPS, own, 0.9 * time, 3, 100)

    lengths = [length(time) for time in (0.1, 5.0, 10.0, 30.0, 300.0)]
    assert lengths == sorted(lengths) and lengths[0] == 8 and lengths[-1] == STEPS
    assert 30 < lengths[1] < lengths[2] < STEPS


@pytest.mark.parametrize(("reading", "first"), [(0.1, 800), (2.0, 100)])
def test_dear_test_examples_are_read_in_parts(reading: float, first: int) -> None:
    assert first_examples(800, reading, 1.0) == first


def test_simulated_errors_and_power_are_those_of_the_docs() -> None:
    """A sample of `python -m tests.comparison.within.simulation`."""
    equal = counted(lambda _: known.World(known.LAYOUTS["equal"](5)), 30.0, 40)
    assert equal.false_better <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 40)
    assert equal.false_tied == 0
    ahead = counted(lambda _: known.World([0.005] * 5, gaps=[0.05, 0, 0, 0, 0]), 28.75, 25)
    assert ahead.power > 0.8 and ahead.used <= 1.0
