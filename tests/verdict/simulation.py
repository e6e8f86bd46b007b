"""Made-up comparisons whose truth is known, to count how often the statistics are wrong.

Variances are of the size that ROUGE-L of small models has: examples differ by 0.15, methods on one
example by 0.09 each, seeds on one example by 0.10, and seeds as a whole by `seed_deviations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from peftlab.verdict.components import estimate
from peftlab.verdict.statistics import Runs, compare_pairs, intervals

EXAMPLE, INTERACTION, RESIDUAL = 0.15, 0.09, 0.10
BASE = 0.40
LAYOUTS = {  # standard deviation between seeds, method by method, as a function of their number
    "equal": lambda methods: np.full(methods, 0.005),
    "loud": lambda methods: np.full(methods, 0.01),
    "unequal": lambda methods: np.geomspace(0.002, 0.02, methods),
    "one very loud": lambda methods: np.r_[0.03, np.full(methods - 1, 0.004)],
}


@dataclass(frozen=True)
class World:
    """Methods with known qualities; `correct` makes scores right or wrong instead of graded."""

    seed_deviations: Sequence[float]
    seeds: int = 3
    examples: int = 500
    gaps: Sequence[float] = ()
    correct: bool = False

    def draw(self, generator: np.random.Generator) -> list[Runs]:
        """One comparison."""
        methods, examples = len(self.seed_deviations), self.examples
        gaps = self.gaps or [0.0] * methods
        common = BASE + generator.normal(0, EXAMPLE, examples)
        runs = []
        for index in range(methods):
            scores = (
                gaps[index]
                + common
                + generator.normal(0, INTERACTION, examples)
                + generator.normal(0, RESIDUAL, (self.seeds, examples))
                + generator.normal(0, self.seed_deviations[index], (self.seeds, 1))
            )
            if self.correct:
                scores = (scores > BASE).astype(float)
            runs.append(Runs(f"method {index}", scores))
        return runs


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
    generator = np.random.default_rng(20)
    gaps = np.array(world.gaps or [0.0] * len(world.seed_deviations))
    for number in range(comparisons):
        estimates = estimate(world.draw(generator), resamples=resamples, seed=number)
        pairs = compare_pairs(estimates, margin=margin, plan=False)
        first, second = np.triu_indices(len(gaps), 1)
        truth = gaps[first] - gaps[second]
        better = np.array([pair.outcome == "better" for pair in pairs])
        tied = np.array([pair.outcome == "tied" for pair in pairs])
        right = np.array([np.sign(pair.difference) for pair in pairs]) == np.sign(truth)
        held = [pair.low <= true <= pair.high for pair, true in zip(pairs, truth, strict=True)]
        singles = [
            one.low <= BASE + gap <= one.high
            for one, gap in zip(intervals(estimates, seed=number), gaps, strict=True)
        ]
        equal = truth == 0
        yield (
            float((better & equal).any()),
            float((tied & (np.abs(truth) >= margin - 1e-9)).any()),
            _mean(better[~equal] & right[~equal]),
            float((better & ~equal & ~right).any()),
            _mean(tied[equal]),
            _mean(singles),
            _mean(held),
        )


def _mean(values: Sequence[bool] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0
