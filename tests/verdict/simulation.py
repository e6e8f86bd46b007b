"""Made-up comparisons whose truth is known, to count how often the statistics are wrong.

Variances are of the size that ROUGE-L of small models has: examples differ by 0.15, methods on one
example by 0.09 each, seeds on one example by 0.10, and seeds as a whole by `seed_deviations`.

`python -m tests.verdict.simulation [comparisons]` prints the tables of docs/statistics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from peftlab.verdict.components import Array, Estimates, estimate
from peftlab.verdict.distribution import Difference
from peftlab.verdict.statistics import Runs, compare_pairs, intervals

EXAMPLE, INTERACTION, RESIDUAL = 0.15, 0.09, 0.10
BASE = 0.40
SCORING = 0.05  # share of the examples that do not score zero, in the kind "zeros"
COLLAPSING, COLLAPSE = 0.1, 0.2  # share of the seeds that drop, and by how much
LAYOUTS = {  # standard deviation between seeds, method by method, as a function of their number
    "equal": lambda methods: np.full(methods, 0.005),
    "loud": lambda methods: np.full(methods, 0.01),
    "unequal": lambda methods: np.geomspace(0.002, 0.02, methods),
    "one very loud": lambda methods: np.r_[0.03, np.full(methods - 1, 0.004)],
}
Kind = Literal["normal", "heavy", "zeros", "collapse"]
KINDS: dict[Kind, str] = {
    "normal": "normal",
    "heavy": "heavy-tailed",
    "zeros": "95 % zeros",
    "collapse": "collapsing seeds",
}


@dataclass(frozen=True)
class World:
    """Methods with known qualities.

    kind: heavy: examples and seeds are t-distributed with 3 and 2 degrees of freedom. zeros: 95 of
        100 examples score 0, for each method others. collapse: one of ten seeds drops by 0.2.
    correct: makes scores right or wrong instead of graded.
    """

    seed_deviations: Sequence[float]
    seeds: int = 3
    examples: int = 500
    gaps: Sequence[float] = ()
    correct: bool = False
    kind: Kind = "normal"

    @property
    def truth(self) -> Array:
        """Quality of each method, [methods]."""
        known = BASE + np.array(self.gaps or [0.0] * len(self.seed_deviations))
        if self.kind == "zeros":
            return known * SCORING
        return known - COLLAPSING * COLLAPSE if self.kind == "collapse" else known

    def draw(self, generator: np.random.Generator) -> list[Runs]:
        """One comparison."""
        methods, examples = len(self.seed_deviations), self.examples
        gaps = self.gaps or [0.0] * methods
        vary, vary_seeds = self._shapes(generator)
        common = BASE + EXAMPLE * vary((examples,))
        runs = []
        for index in range(methods):
            own = common + INTERACTION * vary((examples,))
            scores = gaps[index] + own + RESIDUAL * vary((self.seeds, examples))
            scores = scores + self.seed_deviations[index] * vary_seeds((self.seeds, 1))
            if self.kind == "collapse":
                scores -= COLLAPSE * (generator.random((self.seeds, 1)) < COLLAPSING)
            if self.kind == "zeros":
                scores = scores * (generator.random(examples) < SCORING)
            if self.correct:
                scores = (scores > BASE).astype(float)
            runs.append(Runs(f"method {index}", scores))
        return runs

    def _shapes(self, generator: np.random.Generator) -> tuple[_Draw, _Draw]:
        """Numbers of any shape: of variance 1 for examples, and for seeds."""
        if self.kind != "heavy":
            return generator.standard_normal, generator.standard_normal
        return (
            lambda shape: generator.standard_t(3, shape) / np.sqrt(3),
            lambda shape: generator.standard_t(2, shape),  # whose variance is infinite
        )


_Draw = Callable[[tuple[int, ...]], Array]


@dataclass(frozen=True)
class Rates:
    """Shares of the comparisons.

    false_better: some pair of equals was called better.
    false_tied: some pair that differs by the margin or more was called tied.
    power: of the pairs that differ, those called better the right way round.
    reversed: some pair was called better the wrong way round.
    tied: of the pairs of equals, those called tied.
    covered: of the methods' intervals and of the pairs', those that hold the truth.
    """

    false_better: float
    false_tied: float
    power: float
    reversed: float
    tied: float
    covered: float
    covered_pairs: float


def rates(world: World, comparisons: int, *, margin: float = 0.01, resamples: int = 400) -> Rates:
    """Draw many comparisons and count."""
    counted = list(_counts(world, comparisons, margin, resamples))
    return Rates(*np.mean(np.array(counted), axis=0).tolist())


def _counts(
    world: World, comparisons: int, margin: float, resamples: int
) -> Iterator[tuple[float, ...]]:
    gaps = np.array(world.gaps or [0.0] * len(world.seed_deviations))
    for number, estimates in enumerate(_drawn(world, comparisons, resamples)):
        pairs = compare_pairs(estimates, margin=margin, plan=False)
        first, second = np.triu_indices(len(gaps), 1)
        truth = gaps[first] - gaps[second]
        better = np.array([pair.outcome == "better" for pair in pairs])
        tied = np.array([pair.outcome == "tied" for pair in pairs])
        right = np.array([np.sign(pair.difference) for pair in pairs]) == np.sign(truth)
        held = [pair.low <= true <= pair.high for pair, true in zip(pairs, truth, strict=True)]
        equal = truth == 0
        yield (
            float((better & equal).any()),
            float((tied & (np.abs(truth) >= margin - 1e-9)).any()),
            _mean(better[~equal] & right[~equal]),
            float((better & ~equal & ~right).any()),
            _mean(tied[equal]),
            _mean(_held(world, estimates, number)),
            _mean(held),
        )


def false_better(world: World, comparisons: int, *, resamples: int = 400) -> float:
    """Share of comparisons of equals with any p value that Holm's first step takes for real.

    As `rates` counts it with a margin of 0, but fast enough for 20 methods: only pairs that are
    more than 1.8 standard errors apart are tested, as p is above 5 % for all others.
    """
    errors = 0
    for estimates in _drawn(world, comparisons, resamples):
        pairs = [*zip(*np.triu_indices(len(estimates.runs), 1), strict=True)]
        errors += any(_p(estimates, i, j) * len(pairs) < 0.05 for i, j in pairs)
    return errors / comparisons


def covered(world: World, comparisons: int, *, resamples: int = 1000) -> float:
    """Share of the methods' intervals that hold the truth."""
    drawn = enumerate(_drawn(world, comparisons, resamples))
    return _mean([one for number, estimates in drawn for one in _held(world, estimates, number)])


def _drawn(world: World, comparisons: int, resamples: int) -> Iterator[Estimates]:
    generator = np.random.default_rng(20)
    for number in range(comparisons):
        yield estimate(world.draw(generator), resamples=resamples, seed=number)


def _held(world: World, estimates: Estimates, number: int) -> list[bool]:
    each_interval = intervals(estimates, seed=number)
    return [
        one.low <= true <= one.high for one, true in zip(each_interval, world.truth, strict=True)
    ]


def _p(estimates: Estimates, first: int, second: int) -> float:
    error = Difference(
        example_variance=estimates.example_variance(first, second),
        examples=estimates.examples,
        first=estimates.noise[first],
        second=estimates.noise[second],
    )
    apart = abs(float(estimates.means[first] - estimates.means[second]))
    return 2 * error.tail(apart) if apart > 1.8 * error.deviation() else 1.0


def _mean(values: Sequence[bool] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _table(head: str, rows: Sequence[str], cell: Callable[[str, Kind], float]) -> None:
    print(f"\n| {head} | {' | '.join(KINDS.values())} |\n|---|{'---|' * len(KINDS)}")
    for row in rows:
        shares = (f"{100 * cell(row, kind):.1f} %" for kind in KINDS)
        print(f"| {row} | {' | '.join(shares)} |", flush=True)


def main(comparisons: int = 1000) -> None:
    """Print the tables of docs/statistics.md."""

    def world(row: str, kind: Kind) -> World:
        methods, seeds, examples = (int(part) for part in row.split(" × "))
        return World(LAYOUTS["equal"](methods), seeds, examples, kind=kind)

    _table(
        "methods × seeds × examples: any false “better”",
        [f"{methods} × {seeds} × 500" for seeds in (2, 3, 5) for methods in (2, 5, 10, 20)],
        lambda row, kind: false_better(world(row, kind), comparisons),
    )
    _table(
        "methods × seeds × examples: intervals that hold the truth",
        [f"5 × {seeds} × {examples}" for seeds in (3, 5) for examples in (50, 100, 500)],
        lambda row, kind: covered(world(row, kind), comparisons // 4),
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
