"""What is measured next: rates and methods by validation, then what changes the verdict most a
second.

First short trainings, on a seed of their own, say which rates to use and which methods may be the
best (`screening`). These finalists are trained anew, all to one length, on seeds that chose
nothing, and read the first test examples. From there on each step goes to the next look of the grid
(`verdict.looks`) that is expected to decide most of the leader's open pairs a second: more seeds,
or more test examples, of the methods that are not decided against it. What is out gets nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import special

from peftlab.comparison.within.screening import Screened, rungs, screening
from peftlab.comparison.within.sizes import USED
from peftlab.comparison.within.steps import Candidate, Ground, Read, Steps
from peftlab.verdict.components import Array, Runs
from peftlab.verdict.looks import Grid, Look, Seen, look_at
from peftlab.verdict.planning import with_more_examples, with_more_seeds
from peftlab.verdict.statistics import Outcome, Pair, error_of

BEHIND = 0.10  # of the lowest validation loss: a method further behind is no finalist
_UNKNOWN = 0.5  # the chance that a pair is decided which was in no look
_FURTHEST = 20  # levels of seeds that are aimed at; the last has 160


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be decided.

    Attributes:
        steps: of a whole training, at most; screening takes parts of it.
        margin: a difference that does not matter, in the metric's units.
        aggregate, bounds: of the metric, see `Runs`.
    """

    candidates: tuple[Candidate, ...]
    steps: int
    grid: Grid
    margin: float
    higher_is_better: bool = True
    aggregate: Any = None
    bounds: tuple[float, float] = (-math.inf, math.inf)


@dataclass
class Allocation:
    """How far it has come; `steps` goes on from here and ends when nothing more is worth while.

    Attributes:
        finalists: in the order of their validation losses. started: those that there were at first.
        rates: theirs; None of what trains nothing. scores: by finalist, of seeds 1, 2, ….
        looked: by pair, as the first look left it that decided it, or else the last one.
        path: the looks that were taken, and who took part. seen: the last of them.
        grid: of the problem, its target set. ended: "decided" or "time"; "alone" where fewer than
            two methods came to a look.
        trained: steps of the finalists' trainings; None until screening has ended.
    """

    problem: Problem
    screened: Screened = field(default_factory=Screened)
    finalists: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    rates: dict[str, float | None] = field(default_factory=dict)
    scores: dict[str, dict[int, Array]] = field(default_factory=dict)
    looked: dict[tuple[str, str], tuple[Pair, Look]] = field(default_factory=dict)
    path: list[tuple[int, int, list[str]]] = field(default_factory=list)
    seen: Seen | None = None
    ended: str = ""
    trained: int | None = None

    def __post_init__(self) -> None:
        self.grid = self.problem.grid
        self.known = {one.name: one for one in self.problem.candidates}
        self.again: list[tuple[int, int, list[str]]] = []
        self.met: dict[tuple[str, str], Seen] = {}  # by pair, the last look that it was in
        self.tested: set[tuple[tuple[str, str], Look]] = set()

    def resume(
        self,
        started: Sequence[str],
        rates: Mapping[str, float | None],
        target: tuple[int, int],
        path: Sequence[tuple[int, int, list[str]]],
        trained: int,
    ) -> None:
        """Go on where an earlier one was left that had looked: by the same looks, to what is next.

        Methods that are no candidates any more leave, as failed ones do.
        """
        self.started, self.rates, self.trained = list(started), dict(rates), trained
        self.finalists = [name for name in started if name in self.known]
        self.grid, self.again = replace(self.grid, target=target), list(path)

    def steps(self, ground: Ground) -> Steps[None]:
        """Everything, a step at a time."""
        if not self.started:
            yield from self._screen(ground)
        if len(self.finalists) < 2:
            self.ended = "time" if self.screened.out else "alone"
            return
        taken = self.again.pop(0) if self.again else (0, 0, self.finalists)
        while True:
            look, methods = self.grid.look(*taken[:2]), taken[2]
            there = yield from self._read(look, methods, ground)
            if len(there) < 2:
                break
            self._judge(look, there)
            if self.again:
                taken = self.again.pop(0)
                continue
            if not self.open_pairs():
                self.ended = "decided"
                return
            following = self._best(look, ground)
            if following is None:
                break
            taken = (following[0].seeds_level, following[0].examples_level, following[1])
        self.ended = "time"

    def _screen(self, ground: Ground) -> Steps[None]:
        """Rates and finalists, by validation."""
        problem, self.screened = self.problem, Screened()
        reserve = self._reserve(ground)
        yield from screening(self.screened, problem.candidates, problem.steps, ground, reserve)
        if self.trained is None:
            self.trained = self._length(ground)
        self.finalists = self._chosen(ground)
        self.started = list(self.finalists)
        self.rates = {name: self._rate(name) for name in self.finalists}
        self.grid = self._aimed(ground)

    @property
    def length(self) -> int:
        """Steps of the finalists' trainings; before that is known, of the longest."""
        return self.trained or self.problem.steps

    # --- what stands ---------------------------------------------------------------------------

    @property
    def leader(self) -> str | None:
        """The best mean of the last look; before there was one, the lowest validation loss."""
        if self.seen is None:
            return next(iter([*self.screened.ranked(), *self.finalists]), None)
        means = self.seen.estimates.means
        place = int(means.argmax() if self.problem.higher_is_better else means.argmin())
        return self.seen.estimates.runs[place].name

    @property
    def decided(self) -> dict[tuple[str, str], tuple[Pair, Look]]:
        """The pairs that are "better" or "tied", each with the look that decided it."""
        return {
            k: (pair, look)
            for k, (pair, look) in self.looked.items()
            if pair.outcome != "undecided"
        }

    def standing(self, first: str, second: str) -> Outcome:
        """What is known of a pair of finalists."""
        known = self.decided.get(_key(first, second))
        return "undecided" if known is None else known[0].outcome

    def open_pairs(self) -> list[str]:
        """The finalists that are not decided against the leader."""
        leader = self.leader
        return [
            one
            for one in self.finalists
            if leader is not None and one != leader and self.standing(one, leader) == "undecided"
        ]

    # --- what comes next -----------------------------------------------------------------------

    def _reserve(self, ground: Ground) -> float:
        """Seconds that two finalists of the usual cost take to a first look."""
        firsts = [
            self._look_cost(one, one.rates[0], self.grid.look(0, 0), ground)
            for one in self.problem.candidates
            if one.rates
        ]
        return 2 * sum(firsts) / len(firsts) if firsts else 0.0

    def _look_cost(self, one: Candidate, rate: float | None, look: Look, ground: Ground) -> float:
        return sum(ground.cost(step) for step in self._reads(one, rate, look))

    def _reads(self, one: Candidate, rate: float | None, look: Look) -> list[Read]:
        seeds = range(1, look.seeds + 1) if one.seeded else range(1)
        steps = self.length
        return [Read(one.name, rate, steps, seed, look.examples) for seed in seeds]

    def _length(self, ground: Ground) -> int:
        """Steps of the finalists' trainings: as many as bring two of them, and what trains nothing,
        to a first look. Costs are known better by now than when the length was planned.
        """
        first = self.grid.look(0, 0)
        likely = [*self.screened.ranked()[:2], *self._untrained]

        def fits(steps: int) -> bool:
            self.trained = steps
            each = (
                self._look_cost(self.known[name], self._rate(name), first, ground)
                for name in likely
            )
            return sum(each) <= USED * ground.left()

        lengths = range(rungs(self.problem.steps)[-1], self.problem.steps + 1)
        return lengths[max(0, bisect_left(lengths, True, key=lambda steps: not fits(steps)) - 1)]

    @property
    def _untrained(self) -> list[str]:
        return [one.name for one in self.problem.candidates if not one.rates]

    def _rate(self, name: str) -> float | None:
        return self.screened.rate(name) if self.known[name].rates else None

    def _chosen(self, ground: Ground) -> list[str]:
        """What trains nothing, and as many of the others, by validation loss, as there is time for.

        A prompt alone costs little more than its reading, and is what all others are held against.
        """
        ranked = self.screened.ranked()
        lowest = self.screened.loss(ranked[0]) if ranked else math.inf
        chosen: list[str] = []
        time = USED * ground.left()
        first, whole = self.grid.look(0, 0), self.grid.look(0, self.grid.last)
        used = sum(
            self._look_cost(self.known[name], None, first, ground) for name in self._untrained
        )
        for name in ranked:
            own = self._look_cost(self.known[name], self.screened.rate(name), whole, ground)
            if self.screened.loss(name) > lowest * (1 + BEHIND) and len(chosen) >= 2:
                self.screened.out[name] = (
                    f"its validation loss is {self.screened.loss(name):.3f}, the lowest "
                    f"{lowest:.3f}"
                )
            elif used + own > time and len(chosen) >= 2:
                self.screened.out[name] = "there was no time to compare it too"
            else:
                chosen.append(name)
                used += own
        return chosen + self._untrained

    def _aimed(self, ground: Ground) -> Grid:
        """The grid, aimed at the furthest look that all finalists can be brought to.

        All test examples first, then seeds: they cost less than trainings do.
        """
        grid, time = self.grid, USED * ground.left()
        target = (0, 0)
        seeds = _FURTHEST if any(self.known[name].seeded for name in self.finalists) else 1
        for levels in [(0, level) for level in range(grid.last + 1)] + [
            (level, grid.last) for level in range(1, seeds)
        ]:
            if self._cost(grid.look(*levels), self.finalists, ground) > time:
                break
            target = levels
        return replace(grid, target=target)

    def _read(self, look: Look, methods: Sequence[str], ground: Ground) -> Steps[list[str]]:
        """Bring methods to a look; returns those that arrived in time."""
        reads = {
            name: self._reads(self.known[name], self.rates.get(name), look)
            for name in methods
            if name in self.finalists
        }
        going = list(reads)
        for number in range(max(map(len, reads.values()), default=0)):
            for name in list(going):  # all methods with a seed before any has the next
                if number >= len(reads[name]) or self._has(reads[name][number]):
                    continue
                if ground.cost(reads[name][number]) > ground.left():
                    going.remove(name)  # the others go on without it
                    continue
                scores = yield reads[name][number]
                if scores is None:
                    self._fails(name)
                    going.remove(name)
                else:
                    own = self.scores.setdefault(name, {})
                    own[reads[name][number].seed] = np.asarray(scores)
        return going

    def _has(self, step: Read) -> bool:
        own = self.scores.get(step.method, {}).get(step.seed)
        return own is not None and len(own) >= step.examples

    def _fails(self, name: str) -> None:
        self.finalists.remove(name)
        self.screened.out[name] = "a training of it failed"

    def _judge(self, look: Look, there: Sequence[str]) -> None:
        """Take a look at the methods that have been brought to it."""
        self.path.append((look.seeds_level, look.examples_level, list(there)))
        self.seen = look_at(
            look,
            [self._runs(name, look) for name in there],
            margin=self.problem.margin,
            open_pairs=self._still_open(there),
            higher_is_better=self.problem.higher_is_better,
        )
        for pair in self.seen.pairs:
            key = _key(pair.first, pair.second)
            if key not in self.decided and (key, look) not in self.tested:
                self.looked[key] = (pair, look)
            self.met[key] = self.seen
            self.tested.add((key, look))

    def _still_open(self, there: Sequence[str]) -> int:
        """Pairs of finalists that no look has decided, those that left since included, and the
        decided ones of this look, which take the first ranks of the correction.

        A look can only be wrong first where all before it were right; then the pairs in which it
        can be wrong are among the undecided ones.
        """
        pairs = len(self.started) * (len(self.started) - 1) // 2
        again = sum(set(pair) <= set(there) for pair in self.decided)
        return pairs - len(self.decided) + again

    def _runs(self, name: str, look: Look) -> Runs:
        own = self.scores[name]
        seeds = sorted(own)[: look.seeds]
        return Runs(
            name,
            np.stack([own[seed][: look.examples] for seed in seeds]),
            aggregate=self.problem.aggregate,
            deterministic=not self.known[name].seeded,
            bounds=self.problem.bounds,
        )

    def _best(self, look: Look, ground: Ground) -> tuple[Look, list[str]] | None:
        """The next look, and who takes part besides the leader, that is expected to decide most of
        its open pairs a second; None where no look is in time.

        Who missed the last one may be brought to it: each pair is tested once at a look.
        """
        best, most = None, -1.0
        for following in [look, *self.grid.after(look)]:
            chances = self._chances(following)
            taking_part = [self.leader or ""]
            gain = 0.0
            for name in sorted(chances, key=lambda one: -chances[one]):
                both = [*taking_part, name]
                cost = self._cost(following, both, ground)
                if cost > ground.left():
                    continue
                if following != look and not self._unread(following, both):
                    continue
                taking_part, gain = both, gain + chances[name]
                if gain / max(cost, 1e-9) > most:
                    best, most = (following, both), gain / max(cost, 1e-9)
        return best

    def _unread(self, look: Look, methods: Sequence[str]) -> list[Read]:
        """What methods have to read before they can take part in a look."""
        return [
            step
            for name in methods
            for step in self._reads(self.known[name], self.rates.get(name), look)
            if not self._has(step)
        ]

    def _cost(self, look: Look, methods: Sequence[str], ground: Ground) -> float:
        return sum(map(ground.cost, self._unread(look, methods)))

    def _chances(self, following: Look) -> dict[str, float]:
        """Of each of the leader's open pairs that was not in a look, that the look decides it."""
        leader = self.leader
        assert leader is not None
        chances = {}
        for other in self.open_pairs():
            key = _key(leader, other)
            if key not in self.met:
                chances[other] = _UNKNOWN
            elif (key, following) not in self.tested:
                chances[other] = self._chance(self.met[key], leader, other, following)
        return chances

    def _chance(self, seen: Seen, leader: str, other: str, following: Look) -> float:
        """A pair's difference moves as far as it is uncertain now."""
        look = seen.look
        place = {runs.name: index for index, runs in enumerate(seen.estimates.runs)}
        first, second = place[leader], place[other]
        error = error_of(seen.estimates, first, second)
        sharper = with_more_examples(error, following.examples - look.examples)
        sharper = with_more_seeds(sharper, following.seeds - look.seeds)
        now, then = error.deviation(), sharper.deviation()
        size = abs(float(seen.estimates.means[first] - seen.estimates.means[second]))
        moves = math.sqrt(max(now**2 - then**2, 0.0))
        if not moves:
            return 0.0  # nothing of what is uncertain would be known
        edge = following.quantile * then
        better = float(special.ndtr((size - edge) / moves))
        within = self.problem.margin - edge
        tied = float(special.ndtr((within - size) / moves)) if within > 0 else 0.0
        return better + tied


def _key(first: str, second: str) -> tuple[str, str]:
    return (first, second) if first < second else (second, first)
