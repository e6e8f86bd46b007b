"""How many more seeds, or how many more test examples, would decide an undecided pair.

The variances found so far are carried over to the larger number, and the smallest one is taken with
which the observed difference, were it the true one, would be decided with a probability of 80 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from scipy import special

from peftlab.verdict.components import SeedNoise
from peftlab.verdict.distribution import Difference

POWER = 0.8
MOST_SEEDS = 50
MOST_EXAMPLES = 100_000


@dataclass(frozen=True)
class Needed:
    """Either would do alone. None: not even 50 seeds, or 100,000 examples.

    seeds: more seeds for each of the two methods, with the examples at hand.
    examples: more test examples, with the seeds at hand.
    """

    seeds: int | None
    examples: int | None


@dataclass(frozen=True)
class Goal:
    """When a pair is decided.

    size: observed absolute difference.
    different, equivalent: p values below which it is better, or tied within the `margin`.
    """

    size: float
    margin: float
    different: float
    equivalent: float

    def reached(self, error: Difference) -> bool:
        """Whether this error is small enough to decide, with the asked probability."""
        reserve = float(special.ndtri(POWER)) * error.deviation()
        return (
            2 * error.tail(max(self.size - reserve, 0.0)) < self.different
            or error.tail(self.margin - self.size - reserve) < self.equivalent
        )


def needed(error: Difference, goal: Goal) -> Needed:
    """The smallest numbers that reach the goal."""
    seeds = None
    if error.first.seeds or error.second.seeds:
        most = MOST_SEEDS - max(error.first.seeds, error.second.seeds)
        seeds = _smallest(lambda more: goal.reached(with_more_seeds(error, more)), most)
    most = MOST_EXAMPLES - error.examples
    examples = _smallest(lambda more: goal.reached(with_more_examples(error, more)), most)
    return Needed(seeds=seeds, examples=examples)


def needed_seconds(wanted: Needed, prices: Mapping[str, float]) -> float | None:
    """What the cheaper of the two ways costs; None where neither would do.

    Args:
        prices: of one more of "seeds" and of "examples", of both methods.
    """
    ways = {"seeds": wanted.seeds, "examples": wanted.examples}
    costs = [count * prices[name] for name, count in ways.items() if count and prices[name] > 0]
    return min(costs, default=None)


def with_more_seeds(error: Difference, more: int) -> Difference:
    """The error to be expected with more seeds of both methods."""
    saved = 0.0
    grown = []
    for noise in (error.first, error.second):
        if noise.seeds == 0:
            grown.append(noise)
            continue
        seeds = noise.seeds + more
        saved += noise.residual * (1 / noise.seeds - 1 / seeds)
        grown.append(replace(noise, seeds=seeds, degrees=noise.degrees + more))
    return replace(
        error,
        example_variance=max(error.example_variance - saved, 0.0),
        first=grown[0],
        second=grown[1],
    )


def with_more_examples(error: Difference, more: int) -> Difference:
    """The error to be expected with more test examples."""
    share = error.examples / (error.examples + more)

    def smaller(noise: SeedNoise) -> SeedNoise:
        own = max(noise.variance - noise.residual, 0.0)
        residual = noise.residual * share
        return replace(noise, variance=own + residual, residual=residual)

    return Difference(
        example_variance=error.example_variance * share,
        examples=error.examples + more,
        first=smaller(error.first),
        second=smaller(error.second),
    )


def _smallest(enough: Callable[[int], bool], most: int) -> int | None:
    """Smallest number in 1 … most that is enough, where more never harms."""
    if most < 1 or not enough(most):
        return None
    low, step = 0, 1
    while step < most and not enough(step):
        low, step = step, step * 2
    high = min(step, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
