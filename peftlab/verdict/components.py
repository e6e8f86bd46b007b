"""Where the uncertainty of a mean comes from: test examples, seeds, and what is left.

The score of method m, seed s, example i is taken as

    y[m, s, i] = quality[m] + example[i] + interaction[m, i] + seed[m, s] + residual[m, s, i]

(a crossed random-effects layout, Brennan 2001, "Generalizability Theory", chapter 3). All methods
answer the same examples; seeds are nested in methods. Example variance comes from a bootstrap over
examples that all runs share, so that metrics of a whole corpus (BLEU) are treated like means.
Seed variance comes from the spread of the seeds' scores, drawn a little towards the average over
methods (Smyth 2004, doi:10.2202/1544-6115.1027), since two or three seeds alone say little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import special

from peftlab.errors import InputError

Array = npt.NDArray[np.float64]
Aggregate = Callable[[Array], float]
"""Rows of sufficient statistics [examples, width] → the corpus number."""

PRIOR_DEGREES = 2.0
"""Weight of the average over methods, in degrees of freedom (docs/statistics.md: simulations)."""

BY_CHANCE = 0.995
"""Level of the F test by which a method's seed variance is too large for the others' average."""

LOUD = 4.0
"""Times the median at which a method's seed variance stops to raise the average."""

ANYWHERE = (-math.inf, math.inf)

MIN_EXAMPLES = 5
CHUNK = 4_000_000  # resampled indices held at once


class StatisticsInputError(InputError):
    """Scores that cannot be compared."""


@dataclass(frozen=True)
class Runs:
    """All finished runs of one method.

    Args:
        name: the method, as it shall be called.
        scores: [seeds, examples], one number an example; or [seeds, examples, width] rows of
            sufficient statistics when `aggregate` is given. Every method has the same examples in
            the same order; the number of seeds may differ.
        aggregate: corpus number of rows [examples, width] (a metric's `aggregate`); the mean
            over examples when left out.
        deterministic: nothing random is in the method (a hard prompt), so one run knows it all.
        bounds: the least and the greatest score that there can be.

    Raises:
        StatisticsInputError: a wrong shape, no run, too few examples, or numbers that are not
            finite.
    """

    name: str
    scores: Array
    aggregate: Aggregate | None = None
    deterministic: bool = False
    bounds: tuple[float, float] = ANYWHERE

    def __post_init__(self) -> None:
        scores = np.asarray(self.scores, dtype=np.float64)
        object.__setattr__(self, "scores", scores)
        dimensions = 2 if self.aggregate is None else 3
        layout = "[seeds, examples, width]" if self.aggregate else "[seeds, examples]"
        if scores.ndim != dimensions or scores.shape[0] < 1:
            raise StatisticsInputError(
                f"{self.name}: the scores have the shape {list(scores.shape)}; expected {layout}"
                " with at least one seed. Leave a method without a finished run out."
            )
        if scores.shape[1] < MIN_EXAMPLES:
            raise StatisticsInputError(
                f"{self.name}: {scores.shape[1]} test examples; at least {MIN_EXAMPLES} are needed"
                " to estimate how much examples differ."
            )
        if not np.isfinite(scores).all():
            run, example = np.argwhere(~np.isfinite(scores))[0][:2]
            raise StatisticsInputError(
                f"{self.name}: the score of run {run}, example {example} is not a finite number."
                " Leave a run that diverged out; its method is then judged by the others."
            )

    @property
    def seeds(self) -> int:
        """Number of runs."""
        return int(self.scores.shape[0])

    @property
    def examples(self) -> int:
        """Number of test examples."""
        return int(self.scores.shape[1])

    @property
    def seed_variance_known(self) -> bool:
        """Whether anything can be said of the method beyond the trained model at hand."""
        return self.deterministic or self.seeds > 1

    def values(self) -> Array:
        """The score of each run, [seeds]."""
        if self.aggregate is None:
            return np.asarray(self.scores.mean(axis=1))
        return np.array([self.aggregate(rows) for rows in self.scores])

    def resampled(self, resamples: Resamples) -> Array:
        """The score of each run on each resample of examples, [resamples, seeds]."""
        if self.aggregate is None:
            return np.asarray(resamples.counts @ self.scores.T / self.examples)
        chosen = resamples.indices
        return np.array([[self.aggregate(rows[some]) for rows in self.scores] for some in chosen])


@dataclass(frozen=True)
class Resamples:
    """Test examples drawn with replacement, [resamples, examples]."""

    indices: npt.NDArray[np.intp]

    @cached_property
    def counts(self) -> Array:
        """How often each example was drawn, [resamples, examples]."""
        resamples, examples = self.indices.shape
        flat = self.indices + np.arange(resamples)[:, None] * examples
        counts = np.bincount(flat.ravel(), minlength=resamples * examples)
        return counts.reshape(resamples, examples).astype(np.float64)


@dataclass(frozen=True)
class SeedNoise:
    """What seeds add to the variance of one method's mean.

    variance: of one seed's score, drawn towards the average over methods; it holds the
        residual's share, which the bootstrap over examples holds as well.
    degrees: its degrees of freedom.
    residual: that share, for one seed.
    seeds: number of seeds in the mean; 0 means that seeds add nothing (deterministic methods),
        or that nothing is known of them.
    """

    variance: float = 0.0
    degrees: float = 1.0
    residual: float = 0.0
    seeds: int = 0

    def excess(self, chi_square: Array) -> Array:
        """Variance of the mean beyond the examples', for draws of χ² with `degrees`."""
        if self.seeds == 0:
            return np.zeros(1)
        variance = self.variance * self.degrees / chi_square
        return np.maximum(variance - self.residual, 0.0) / self.seeds


@dataclass(frozen=True)
class Estimates:
    """Everything that intervals, tests and plans are made of; lists are in the order of the runs.

    replicates: mean over seeds on each resample of examples, centred and unbiased in variance,
        [resamples, methods].
    """

    runs: tuple[Runs, ...]
    means: Array
    raw_seed_variances: tuple[float | None, ...]
    noise: tuple[SeedNoise, ...]
    replicates: Array = field(repr=False)

    @property
    def examples(self) -> int:
        """Number of test examples, the same for all."""
        return self.runs[0].examples

    def skewness(self, method: int) -> float:
        """Of a mean's distribution over test examples; infinite where all of them score the same.

        Large where a few examples, which score far from the rest, decide.
        """
        drawn = self.replicates[:, method]
        deviation = float(drawn.std())
        # what adding up equal scores leaves is no spread
        negligible = 1e-12 * max(1.0, abs(float(self.means[method])))
        if deviation <= negligible:
            return math.inf
        return float(np.mean((drawn / deviation) ** 3))

    def example_variance(self, first: int, second: int) -> float:
        """Variance, over test examples, of the difference of two means."""
        return float(np.var(self.replicates[:, first] - self.replicates[:, second]))


def estimate(runs: Sequence[Runs], *, resamples: int = 2000, seed: int = 0) -> Estimates:
    """Estimate means and their sources of variance.

    Raises:
        StatisticsInputError: no runs, a name twice, or different numbers of examples.
    """
    _check_together(runs)
    values = [method.values() for method in runs]
    blocks: list[list[Array]] = [[] for _ in runs]
    for some in _resamples(runs[0].examples, resamples, seed):
        for block, method in zip(blocks, runs, strict=True):
            block.append(method.resampled(some))
    drawn = [np.concatenate(block) for block in blocks]
    unbias = np.sqrt(runs[0].examples / (runs[0].examples - 1))
    drawn = [(block - block.mean(axis=0)) * unbias for block in drawn]
    raw = tuple(float(v.var(ddof=1)) if len(v) > 1 else None for v in values)
    return Estimates(
        runs=tuple(runs),
        means=np.array([v.mean() for v in values]),
        raw_seed_variances=raw,
        noise=_seed_noise(runs, raw, [_residual(block) for block in drawn]),
        replicates=np.stack([block.mean(axis=1) for block in drawn], axis=1),
    )


def _check_together(runs: Sequence[Runs]) -> None:
    if not runs:
        raise StatisticsInputError("There is no finished run to compare.")
    names = [method.name for method in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StatisticsInputError(
            f"The name {twice[0]!r} is there twice; give all seeds of a method together."
        )
    if len({method.examples for method in runs}) > 1:
        sizes = ", ".join(f"{method.name}: {method.examples}" for method in runs)
        raise StatisticsInputError(
            f"The methods were scored on different numbers of test examples ({sizes}); scores are"
            " compared example by example, so evaluate all on the same ones."
        )


def _resamples(examples: int, resamples: int, seed: int) -> Iterator[Resamples]:
    """As many as asked for, few enough at once to fit in memory."""
    generator = np.random.default_rng(seed)
    size = max(1, CHUNK // examples)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        yield Resamples(generator.integers(examples, size=(count, examples)))


def _residual(replicates: Array) -> float:
    """Variance over examples that the seeds of one method do not share, for one seed."""
    seeds = replicates.shape[1]
    if seeds < 2:
        return 0.0
    covariance = np.cov(replicates, rowvar=False)
    shared = (covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))
    return max(float(np.trace(covariance) / seeds - shared), 0.0)


def _seed_noise(
    runs: Sequence[Runs], raw: Sequence[float | None], residuals: Sequence[float]
) -> tuple[SeedNoise, ...]:
    """Draw each method's seed variance towards the average over the methods that have one."""
    known = {
        index: variance
        for index, variance in enumerate(raw)
        if variance is not None and not runs[index].deterministic
    }
    if not known:
        return tuple(SeedNoise() for _ in runs)
    total = sum(runs[index].seeds - 1 for index in known)
    noise = [SeedNoise() for _ in runs]
    for index, variance in known.items():
        own = runs[index].seeds - 1
        others = [known[other] for other in known if other != index]
        # the seeds of one or two other methods are too few to trust their average that far
        prior = 0.0 if _loud(variance, own, others, total - own) else (total - own) / 4
        prior = min(PRIOR_DEGREES, prior)
        average = _average([variance, *others], plain=own == 1)
        noise[index] = SeedNoise(
            variance=(prior * average + own * variance) / (prior + own),
            degrees=prior + own,
            residual=residuals[index],
            seeds=runs[index].seeds,
        )
    return tuple(noise)


def _average(variances: Sequence[float], *, plain: bool) -> float:
    """The average variance, in which a method far louder than most counts as if it were not.

    Among many methods one is often loud (a search that ends elsewhere with every seed), and the
    others do not pay for it (as Phipson et al. 2016, doi:10.1214/16-AOAS920, find for genes). The
    `plain` average is for methods with two seeds: where runs collapse now and then, both may have,
    which look alike, and only the other methods' seeds tell of it.
    """
    most = math.inf if plain else LOUD * float(np.median(variances))
    return float(np.minimum(variances, most).mean())


def _loud(variance: float, own: int, others: Sequence[float], degrees: int) -> bool:
    """Whether chance alone hardly makes a variance that much larger than the others' (F test).

    Such a method is not drawn towards the average, which would promise more than its seeds show.
    """
    if not others:
        return False
    return variance > float(special.fdtri(own, degrees, BY_CHANCE)) * float(np.mean(others))
