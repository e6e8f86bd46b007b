"""A verdict that may be looked at while more is measured, and that decides what is measured next.

Fixed beforehand is a grid of looks: so many seeds of every method, the first so many test examples
of one fixed order. Each look has its share of the error that is allowed in all, and a test at that
share is valid by itself, as its data do not depend on what was seen. So by the union bound a false
"better" in any look that takes place is no more likely than all shares together, whatever decides
which methods and looks are paid for, and when to stop; and so is a false "tied". (Spending
functions, Lan & DeMets 1983, ask that looks do not hang on the effect, which these do.)

Within a look Holm's procedure corrects for all pairs of finalists that no look has decided, also
those that are not looked at. (The first false claim comes from a look before which all was right,
so the true hypotheses are among these.) Who is a finalist, and its rate, was chosen on the
validation split and with a seed that the looks do not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil

from scipy import special

from peftlab.verdict.components import Estimates, Runs, estimate
from peftlab.verdict.statistics import CONFIDENCE, Pair, compare_pairs

FEWEST = 3  # seeds of the first level
_MORE = 1.25  # times the seeds of the level before, rounded up
_LATER = 0.7  # of a level's share has the next one
# Of the allowed error: what the look has that the time is expected to reach, those with more seeds
# of as many examples (half of it the first of them, and so on), and all others together.
_TARGET, _BEYOND, _ELSEWHERE = 0.85, 0.12, 0.03


@dataclass(frozen=True)
class Grid:
    """All looks that there can be, and how the allowed error is divided among them.

    first: test examples of the first level; each further one has twice as many, up to `whole`.
    target: levels of the look that is expected to be the last; it gets most of the error. It may
        hang on time and costs, and on nothing that a look reads.
    """

    first: int
    whole: int
    allowed: float = 1 - CONFIDENCE
    target: tuple[int, int] | None = None

    @property
    def last(self) -> int:
        """The level of all test examples."""
        return next(level for level in count() if self.first * 2**level >= self.whole)

    def look(self, seeds_level: int, examples_level: int) -> Look:
        """One of them."""
        return Look(
            seeds_level,
            examples_level,
            seeds=seeds_at(seeds_level),
            examples=min(self.first * 2**examples_level, self.whole),
            allowed=self.allowed * self._part(seeds_level, examples_level),
        )

    def after(self, look: Look) -> list[Look]:
        """Those with the next number of seeds, and of test examples if there are more."""
        seeds, examples = look.seeds_level, look.examples_level
        more = [self.look(seeds + 1, examples)]
        return more + ([self.look(seeds, examples + 1)] if examples < self.last else [])

    def _part(self, seeds_level: int, examples_level: int) -> float:
        """Of the allowed error; of all looks together at most 1."""
        part = _share(seeds_level) * self._examples_share(examples_level)
        if self.target is None:
            return part
        beyond = seeds_level - self.target[0]
        if examples_level != self.target[1] or beyond < 0:
            return _ELSEWHERE * part
        return _BEYOND * 0.5**beyond if beyond else _TARGET

    def _examples_share(self, level: int) -> float:
        """Of finitely many levels, the more examples the more."""
        return (level + 1) / sum(range(1, self.last + 2))


@dataclass(frozen=True)
class Look:
    """What a look reads, and the error that it is allowed.

    seeds: of every method in which something is random. examples: the first so many.
    """

    seeds_level: int
    examples_level: int
    seeds: int
    examples: int
    allowed: float

    @property
    def quantile(self) -> float:
        """How many standard errors a difference has to have, about, to be told from none."""
        return -float(special.ndtri(self.allowed / 2))


def seeds_at(level: int) -> int:
    """3, 4, 5, 7, 9, 12, …"""
    seeds = FEWEST
    for _ in range(level):
        seeds = ceil(seeds * _MORE)
    return seeds


def _share(level: int) -> float:
    """Of all levels together 1."""
    return (1 - _LATER) * _LATER**level


@dataclass(frozen=True)
class Seen:
    """A look that has taken place: its pairs, and what they were made of."""

    look: Look
    pairs: tuple[Pair, ...]
    estimates: Estimates


def look_at(
    look: Look,
    runs: Sequence[Runs],
    *,
    margin: float,
    open_pairs: int,
    higher_is_better: bool = True,
    resamples: int = 2000,
) -> Seen:
    """Test the pairs of methods that a look has read.

    Args:
        runs: of at least two methods, each with the look's seeds and examples.
        margin: a difference that does not matter, in the metric's units, fixed beforehand.
        open_pairs: how many pairs of finalists no look before has decided, and the decided ones of
            these methods.
    """
    estimates = estimate(runs, resamples=resamples)
    pairs = compare_pairs(
        estimates,
        margin=margin,
        confidence=1 - look.allowed,
        higher_is_better=higher_is_better,
        family=open_pairs,
    )
    return Seen(look, pairs, estimates)
