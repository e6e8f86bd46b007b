"""The allocator on made-up comparisons whose truth is known.

Trainings cost their length, in whole trainings; reading all test examples a part of one. Scores are
drawn as `tests.verdict.simulation` draws them; validation losses fall with quality, by more or less
noise; a third of the methods is best at a rate that is not its first.

`python -m tests.comparison.within.simulation [comparisons]` prints the tables of
docs/statistics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from peftlab.comparison.within.allocation import Allocation, Problem
from peftlab.comparison.within.sizes import first_examples
from peftlab.comparison.within.steps import Candidate, Read, Step, Steps, Train
from peftlab.verdict.components import estimate
from peftlab.verdict.looks import Grid
from peftlab.verdict.statistics import compare_pairs
from tests.verdict import simulation as known

WHOLE = 500  # test examples
READING = 0.25  # of a whole training: all of them
RATES = (1.0, 1 / 3, 3.0)
MOST_SEEDS = 40


@dataclass
class Ground:
    """Made-up methods, and how much of the time is used.

    Attributes:
        world: as it is drawn from, with seeds to spare. time: in whole trainings.
        slower: everything takes so many times what was predicted.
    """

    world: known.World
    time: float
    seed: int = 0
    noise: float = 0.01
    slower: float = 1.0
    reading: float = READING
    used: float = 0.0
    trained: dict[tuple[str, float, int], float] = field(default_factory=dict)
    read: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)
        runs = replace(self.world, seeds=MOST_SEEDS, examples=WHOLE).draw(self.generator)
        self.scores = {one.name: one.scores for one in runs}
        self.best_rate = {
            name: RATES[self.generator.choice(3, p=(2 / 3, 1 / 6, 1 / 6))] for name in self.scores
        }
        self.losses = dict(zip(self.scores, 2.0 - 2 * self.world.truth, strict=True))

    def left(self) -> float:
        return self.time - self.used

    def cost(self, step: Step) -> float:
        if isinstance(step, Train):
            return self._training(step)
        have = self.read.get((step.method, step.seed))
        own = self.reading * max(0, step.examples - (have or 0)) / WHOLE
        return own + (step.steps / STEPS if have is None else 0.0)

    def _training(self, step: Train) -> float:
        longest = max(
            (s for m, r, s in self.trained if (m, r) == (step.method, step.rate)), default=0
        )
        return max(0.0, step.steps - 0.8 * longest) / STEPS

    def do(self, step: Step) -> Any:
        self.used += self.slower * self.cost(step)
        if isinstance(step, Read):
            have = self.read.get((step.method, step.seed), 0)
            self.read[step.method, step.seed] = max(have, step.examples)
            return self.scores[step.method][step.seed, : step.examples]
        off = abs(np.log(step.rate / self.best_rate[step.method])) / np.log(3)
        unfinished = 0.3 * (1 - step.steps / STEPS)
        loss = self.losses[step.method] + 0.05 * off + unfinished
        loss += self.noise * self.generator.standard_normal()
        self.trained[step.method, step.rate, step.steps] = loss
        return loss


STEPS = 300


def follow(steps: Steps[None], do: Callable[[Step], Any]) -> None:
    """Carry out an allocation: `do(step)` returns each step's answer."""
    answer: Any = None
    while True:
        try:
            step: Step = steps.send(answer)
        except StopIteration:
            return
        answer = do(step)


def allocated(ground: Ground, margin: float = 0.01) -> Allocation:
    """One comparison to its end."""
    names = tuple(Candidate(name, RATES) for name in ground.scores)
    first = first_examples(WHOLE, ground.reading, 1.0)
    problem = Problem(candidates=names, steps=STEPS, grid=Grid(first, WHOLE), margin=margin)
    allocation = Allocation(problem)
    follow(allocation.steps(ground), ground.do)
    return allocation


@dataclass(frozen=True)
class Counted:
    """Shares of comparisons with any false "better" or "tied"; of the pairs of the truly best
    method with one that is worse, of those called better the right way round; and of the time.
    """

    false_better: float
    false_tied: float
    power: float
    used: float


def counted(
    world: Callable[[np.random.Generator], known.World],
    time: float,
    comparisons: int,
    margin: float = 0.01,
    **about: Any,
) -> Counted:
    """Draw many comparisons of a kind and allocate each of them."""
    better = tied = 0
    power = used = 0.0
    for number in range(comparisons):
        made = world(np.random.default_rng(number))
        ground = Ground(made, time, seed=number, **about)
        made_of = allocated(ground, margin)
        truth = dict(zip(ground.scores, made.truth, strict=True))
        wrong_better = wrong_tied = False
        for (first, second), (pair, _) in made_of.decided.items():
            gap = truth[first] - truth[second]
            if pair.outcome == "better":
                winner = first if gap > 0 else second
                wrong_better |= gap == 0 or pair.winner != winner
            else:
                wrong_tied |= abs(gap) >= margin
        best = max(truth, key=truth.__getitem__)
        worse = [name for name in truth if truth[name] < truth[best]]
        power += sum(made_of.standing(best, name) == "better" for name in worse) / max(
            1, len(worse)
        )
        better, tied = better + wrong_better, tied + wrong_tied
        used += ground.used / time
    return Counted(*(each / comparisons for each in (better, tied, power, used)))


def fixed(
    world: Callable[[np.random.Generator], known.World], comparisons: int, seeds: int = 3
) -> tuple[float, float]:
    """The power of a design of so many seeds of every method, and what it costs.

    Its rates are searched for in four trainings of half the length.
    """
    power = cost = 0.0
    for number in range(comparisons):
        made = replace(world(np.random.default_rng(number)), seeds=seeds, examples=WHOLE)
        runs = made.draw(np.random.default_rng(number))
        truth = dict(zip([one.name for one in runs], made.truth, strict=True))
        best = max(truth, key=truth.__getitem__)
        worse = [name for name in truth if truth[name] < truth[best]]
        pairs = compare_pairs(estimate(runs, resamples=400), margin=0.01, plan=False)
        won = [pair for pair in pairs if pair.winner == best]
        power += len(won) / max(1, len(worse))
        cost = len(runs) * (4 / 2 + seeds * (1 + READING))
    return power / comparisons, cost


def _equal(methods: int, layout: str, kind: known.Kind) -> Callable[..., known.World]:
    return lambda _: known.World(known.LAYOUTS[layout](methods), kind=kind)


def _ahead(methods: int, gap: float) -> Callable[..., known.World]:
    gaps = [gap, *[0.0] * (methods - 1)]
    return lambda _: known.World(known.LAYOUTS["equal"](methods), gaps=gaps)


KINDS: tuple[tuple[str, known.Kind], ...] = (
    ("equal", "normal"), ("unequal", "normal"), ("one very loud", "normal"), ("loud", "heavy"),
    ("equal", "zeros"), ("equal", "collapse"),
)  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    comparisons = int(arguments[0]) if arguments else 200
    print("| methods × time | seeds, scores | reading | any false better | any false tied |")
    print("|---|---|---|---|---|")
    for methods, time, reading in ((2, 20, 0.25), (5, 30, 0.25), (5, 60, 2.0), (10, 60, 0.25)):
        for layout, kind in KINDS:
            world = _equal(methods, layout, kind)
            got = counted(world, time, comparisons, margin=0.02, reading=reading)
            print(
                f"| {methods} × {time} | {layout}, {known.KINDS[kind]} | {reading} "
                f"| {got.false_better:.1%} | {got.false_tied:.1%} |",
                flush=True,
            )
    print(
        "\n| methods | gap | cost | power | power of three seeds of each |\n|---|---|---|---|---|"
    )
    for methods in (2, 5, 10):
        for gap in (0.02, 0.03, 0.04, 0.05):
            power, cost = fixed(_ahead(methods, gap), comparisons)
            got = counted(_ahead(methods, gap), cost, comparisons)
            print(f"| {methods} | {gap} | {cost:.0f} | {got.power:.0%} | {power:.0%} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
