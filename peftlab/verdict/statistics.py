"""Means with intervals, and for every pair of methods: better, tied or undecided.

`analyse(runs)` is the way in. What is estimated and how it was chosen: docs/statistics.md.

A claim about *methods* needs at least two seeds of each (or none at all, for a method in which
nothing is random). With one seed, the same numbers speak of the trained models at hand only: such a
pair is always "undecided", and `among_models` says what holds for these models.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Literal

import numpy as np
from scipy import special

from peftlab.verdict.components import (
    Array,
    Estimates,
    Runs,
    SeedNoise,
    StatisticsInputError,
    estimate,
)
from peftlab.verdict.distribution import Difference
from peftlab.verdict.planning import Goal, Needed, needed

__all__ = [
    "Interval",
    "Needed",
    "Pair",
    "Runs",
    "Statistics",
    "StatisticsInputError",
    "absolute_margin",
    "analyse",
    "compare_pairs",
    "error_of",
    "holm",
    "intervals",
]

Outcome = Literal["better", "tied", "undecided"]
Scope = Literal["methods", "trained models"]

DEFAULT_MARGIN = "2%"
CONFIDENCE = 0.95
UNEVEN = 0.3
"""Skewness of a mean over examples from which its interval is said to be uncertain. Cochran 1977,
"Sampling Techniques", section 2.15, asks for at most 0.2, of intervals that no skewness widens."""

MOST_TESTED = 24
"""Methods whose pairs are tested, the best ones: the number of pairs grows with the square."""


@dataclass(frozen=True)
class Interval:
    """Quality of one method.

    scope: "methods" when the interval holds seed variance, "trained models" when that is unknown.
    seed_deviation: standard deviation between the seeds' scores; None with one seed.
    uneven: a few test examples decide (most score alike), so that it may be too narrow.
    """

    name: str
    mean: float
    low: float
    high: float
    confidence: float
    seeds: int
    examples: int
    seed_deviation: float | None
    scope: Scope
    uneven: bool = False


@dataclass(frozen=True)
class Pair:
    """Two methods compared.

    difference: mean of the first less mean of the second, with its interval (of this pair alone).
    p_different, p_equivalent: two-sided test of a difference; two one-sided tests of a difference
        within the margin. Both after Holm's correction for the number of pairs of this scope and
        kind.
    leader: the one with the better mean, whatever that is worth; None when they are equal.
    outcome: about the methods. "tied" when equivalent within the margin, even where a smaller
        difference than that is real.
    winner: the better one, when the outcome is "better".
    among_models: the outcome for the trained models at hand, in the scope "trained models".
    needed: what would decide an undecided pair of methods.
    declared: compared on purpose, and corrected for the number of such pairs alone.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p_different: float
    p_equivalent: float
    scope: Scope
    outcome: Outcome
    among_models: Outcome | None
    leader: str | None
    winner: str | None
    needed: Needed | None = None
    declared: bool = False


@dataclass(frozen=True)
class Statistics:
    """Everything that `analyse` found; `margin` is absolute, in the metric's own units."""

    margin: float
    confidence: float
    intervals: tuple[Interval, ...]
    pairs: tuple[Pair, ...]


def analyse(
    runs: Sequence[Runs],
    *,
    margin: float | str = DEFAULT_MARGIN,
    confidence: float = CONFIDENCE,
    higher_is_better: bool = True,
    resamples: int = 2000,
    seed: int = 0,
    most: int = MOST_TESTED,
    declared: Collection[tuple[str, str]] = (),
) -> Statistics:
    """Compare methods by their scores on the same test examples.

    Args:
        runs: one entry a method, finished runs only.
        margin: a difference that does not matter, in the metric's units (0.01), or as a share of
            the best mean ("2%").
        confidence: of intervals and of the family of all tests.
        higher_is_better: False for losses and error rates.
        resamples: of the test examples.
        seed: of the resampling; the same seed gives the same numbers.
        most: methods whose pairs are tested; all methods have intervals.
        declared: pairs of names that are compared on purpose; a family of tests of their own.

    Raises:
        StatisticsInputError: scores that cannot be compared, or a margin that is no number.
    """
    if not 0.5 < confidence < 1:
        raise StatisticsInputError(f"confidence is {confidence}; expected one such as 0.95")
    estimates = estimate(runs, resamples=resamples, seed=seed)
    best = float(estimates.means.max() if higher_is_better else estimates.means.min())
    absolute = absolute_margin(margin, best)
    return Statistics(
        margin=absolute,
        confidence=confidence,
        intervals=intervals(estimates, confidence=confidence, seed=seed),
        pairs=compare_pairs(
            estimates,
            margin=absolute,
            confidence=confidence,
            higher_is_better=higher_is_better,
            most=most,
            declared=declared,
        ),
    )


def absolute_margin(margin: float | str, best: float) -> float:
    """The margin in the metric's units.

    Raises:
        StatisticsInputError: not a positive number, nor a positive percentage such as "2%".
    """
    try:
        if isinstance(margin, str) and margin.strip().endswith("%"):
            value = float(margin.strip()[:-1]) / 100 * abs(best)
        else:
            value = float(margin)
    except ValueError:
        value = float("nan")
    if not (np.isfinite(value) and value >= 0):
        raise StatisticsInputError(
            f"the margin is {margin!r}; expected a difference in the metric's units such as 0.01,"
            ' or a share of the best score such as "2%"'
        )
    return value


def intervals(
    estimates: Estimates, *, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[Interval, ...]:
    """Two-level bootstrap: examples are resampled, seeds drawn from their estimated spread.

    Seeds are drawn from a bell curve whose variance is itself drawn, as resampling two or three of
    them gives intervals that are far too short. The end on the side of the examples that score far
    from the rest is moved out (`_stretch`), and neither leaves the metric's range.
    """
    generator = np.random.default_rng(seed)
    results = []
    for index, runs in enumerate(estimates.runs):
        mean = float(estimates.means[index])
        draws = mean + estimates.replicates[:, index]
        draws = draws + _seed_draws(estimates.noise[index], len(draws), generator)
        low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        stretch = _stretch(estimates, index, confidence)
        least, greatest = runs.bounds
        variance = estimates.raw_seed_variances[index]
        results.append(
            Interval(
                name=runs.name,
                mean=mean,
                low=max(float(low) + min(stretch, 0.0), min(least, mean)),
                high=min(float(high) + max(stretch, 0.0), max(greatest, mean)),
                confidence=confidence,
                seeds=runs.seeds,
                examples=runs.examples,
                seed_deviation=None if variance is None else float(np.sqrt(variance)),
                scope="methods" if runs.seed_variance_known else "trained models",
                uneven=abs(estimates.skewness(index)) > UNEVEN,
            )
        )
    return tuple(results)


def _stretch(estimates: Estimates, index: int, confidence: float) -> float:
    """How far a skewed mean's interval ends beyond the bootstrap's quantiles, up or down.

    The quantiles allow for the skewness of what was seen, not for the mean and the variance going
    together in it: to second order, both ends of a studentised interval lie (2 + z²)/6 · skewness
    standard errors further (Hall 1992, "The Bootstrap and Edgeworth Expansion", chapter 3). Only
    the outer end is moved.
    """
    skewness = estimates.skewness(index)
    drawn = float(estimates.replicates[:, index].std())
    noise = estimates.noise[index]
    total = drawn**2 + float(noise.excess(np.array([noise.degrees]))[0])
    if not np.isfinite(skewness):
        return 0.0
    z = float(special.ndtri((1 + confidence) / 2))
    return (2 + z**2) / 6 * skewness * drawn**3 / total


def _seed_draws(noise: SeedNoise, count: int, generator: np.random.Generator) -> Array:
    """What seeds add to the mean, [count]."""
    variances = noise.excess(generator.chisquare(noise.degrees, size=count))
    return np.asarray(np.sqrt(variances) * generator.normal(size=count))


@dataclass(frozen=True)
class _Tested:
    """One pair before the correction for the number of pairs; indices into the estimates."""

    first: int
    second: int
    difference: float
    error: Difference
    scope: Scope
    declared: bool
    different: float
    equivalent: float


def compare_pairs(
    estimates: Estimates,
    *,
    margin: float,
    confidence: float = CONFIDENCE,
    higher_is_better: bool = True,
    plan: bool = True,
    most: int = MOST_TESTED,
    declared: Collection[tuple[str, str]] = (),
    family: int = 0,
) -> tuple[Pair, ...]:
    """Test the pairs of the best `most`, and the declared ones; with `plan`, say what would decide
    the undecided ones.

    family: the least number of tests that is corrected for, where others might have been made.
    """
    ranked = np.argsort(-estimates.means if higher_is_better else estimates.means, kind="stable")
    among = sorted(ranked[:most].tolist())
    place = {runs.name: index for index, runs in enumerate(estimates.runs)}
    ends = [(place[a], place[b]) for a, b in declared]
    wanted = {(min(pair), max(pair)) for pair in ends}
    numbers = sorted(wanted.union(combinations(among, 2)))
    tested = [_test(estimates, i, j, margin, (i, j) in wanted) for i, j in numbers]
    pairs: dict[tuple[int, int], Pair] = {}
    for scope, on_purpose in product(("methods", "trained models"), (False, True)):
        own = [one for one in tested if (one.scope, one.declared) == (scope, on_purpose)]
        pairs_judged = [
            _outcome(estimates, one, corrected, confidence, higher_is_better)
            for one, corrected in zip(own, _corrected(own, family), strict=True)
        ]
        if plan and scope == "methods":
            pairs_judged = _planned(own, pairs_judged, margin, confidence, family)
        pairs |= {
            (one.first, one.second): pair for one, pair in zip(own, pairs_judged, strict=True)
        }
    return tuple(pairs[key] for key in sorted(pairs))


def holm(p: Array, family: int = 0) -> Array:
    """P values corrected for their number (Holm 1979): step-down, valid under any dependence.

    family: how many tests there are if these are not all; the others count as if they had failed.
    """
    order = np.argsort(p)
    left = np.arange(max(len(p), family), 0, -1)[: len(p)]
    stepped = np.maximum.accumulate(p[order] * left)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _test(estimates: Estimates, first: int, second: int, margin: float, declared: bool) -> _Tested:
    known = all(estimates.runs[index].seed_variance_known for index in (first, second))
    error = error_of(estimates, first, second)
    difference = float(estimates.means[first] - estimates.means[second])
    return _Tested(
        first=first,
        second=second,
        difference=difference,
        error=error,
        scope="methods" if known else "trained models",
        declared=declared,
        different=2 * error.tail(abs(difference)),
        equivalent=error.tail(margin - abs(difference)),
    )


def error_of(estimates: Estimates, first: int, second: int) -> Difference:
    """The error of the difference of two methods; of the models at hand where seeds are unknown."""
    known = all(estimates.runs[index].seed_variance_known for index in (first, second))
    nothing = SeedNoise()
    return Difference(
        example_variance=estimates.example_variance(first, second),
        examples=estimates.examples,
        first=estimates.noise[first] if known else nothing,
        second=estimates.noise[second] if known else nothing,
    )


def _corrected(tested: Sequence[_Tested], family: int) -> list[tuple[float, float]]:
    different = holm(np.array([one.different for one in tested]), family)
    equivalent = holm(np.array([one.equivalent for one in tested]), family)
    return list(zip(different.tolist(), equivalent.tolist(), strict=True))


def _outcome(
    estimates: Estimates,
    one: _Tested,
    corrected: tuple[float, float],
    confidence: float,
    higher_is_better: bool,
) -> Pair:
    different, equivalent = corrected
    outcome: Outcome = "undecided"
    if equivalent < 1 - confidence:
        outcome = "tied"
    elif different < 1 - confidence:
        outcome = "better"
    names = (estimates.runs[one.first].name, estimates.runs[one.second].name)
    of_methods = one.scope == "methods"
    half = one.error.quantile(confidence)
    least, greatest = estimates.runs[one.first].bounds
    span = max(greatest - least, abs(one.difference))
    leader = None
    if one.difference != 0:
        leader = names[0] if (one.difference > 0) == higher_is_better else names[1]
    return Pair(
        first=names[0],
        second=names[1],
        difference=one.difference,
        low=max(one.difference - half, -span),
        high=min(one.difference + half, span),
        p_different=different,
        p_equivalent=equivalent,
        scope=one.scope,
        outcome=outcome if of_methods else "undecided",
        among_models=None if of_methods else outcome,
        leader=leader,
        winner=leader if of_methods and outcome == "better" else None,
        declared=one.declared,
    )


def _planned(
    tested: Sequence[_Tested],
    pairs: Sequence[Pair],
    margin: float,
    confidence: float,
    family: int,
) -> list[Pair]:
    """Add to undecided pairs what would decide them, at Holm's step after the decided ones."""
    better = sum(pair.outcome == "better" for pair in pairs)
    tied = sum(pair.outcome == "tied" for pair in pairs)
    planned = []
    number = max(len(pairs), family)
    for one, pair in zip(tested, pairs, strict=True):
        if pair.outcome == "undecided":
            goal = Goal(
                size=abs(one.difference),
                margin=margin,
                different=(1 - confidence) / (number - better),
                equivalent=(1 - confidence) / (number - tied),
            )
            pair = replace(pair, needed=needed(one.error, goal))
        planned.append(pair)
    return planned
