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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import special

from peftlab.comparison.within.screening import LEAST, Screened, screening
from peftlab.comparison.within.steps import Candidate, Ground, Read, Step, Steps, Train
from peftlab.verdict.components import Array, Runs
from peftlab.verdict.looks import Grid, Look, Seen, look_at
from peftlab.verdict.planning import with_more_examples, with_more_seeds
from peftlab.verdict.statistics import Outcome, Pair, error_of

RUNGS = (8, 3)  # parts of the whole length that methods are screened at
FOR_FINALS = 0.5  # of the time, at least, when lengths are chosen
USED = 0.9  # of the time, when lengths and finalists are chosen: predictions are not exact
BEHIND = 0.10  # of the lowest validation loss: a method further behind is no finalist
FEWEST_STEPS = 8
CHEAP = 0.3  # of a training: where reading all test examples takes less, none are left for later
_LEAST_READ = 32  # test examples of the first level
_FURTHEST = 20  # levels of seeds that are aimed at; the last has 160


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be decided.

    Attributes:
        steps: of a whole training. seeds: the first screens, and no verdict reads it; the others
            follow in order, as many as are bought.
        margin: a difference that does not matter, in the metric's units.
        scored: makes `Runs` of a method's scores [seeds, examples(, width)].
    """

    candidates: tuple[Candidate, ...]
    steps: int
    grid: Grid
    margin: float
    higher_is_better: bool = True
    aggregate: Any = None
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def rungs(self) -> list[int]:
        """Steps of the trainings that screen, the shortest first."""
        return [max(1, self.steps // part) for part in RUNGS]


@dataclass
class Allocation:
    """How far it has come; `steps` goes on from here and ends when nothing more is worth while.

    Attributes:
        finalists: in the order of their validation losses. scores: by finalist, of seeds 1, 2, ….
        decided: by pair, at the first look that decided it. seen: the last look.
        grid: of the problem, its target set. ended: "decided" or "time".
    """

    problem: Problem
    screened: Screened = field(default_factory=Screened)
    finalists: list[str] = field(default_factory=list)
    scores: dict[str, dict[int, Array]] = field(default_factory=dict)
    decided: dict[tuple[str, str], tuple[Pair, Look]] = field(default_factory=dict)
    seen: Seen | None = None
    ended: str = ""

    def __post_init__(self) -> None:
        self.grid = self.problem.grid

    def steps(self, ground: Ground) -> Steps[None]:
        """Everything, a step at a time."""
        problem = self.problem
        self.screened = yield from screening(
            problem.candidates, problem.rungs, ground, self._reserve(ground)
        )
        self.finalists = self._chosen(ground)
        self.grid = self._aimed(ground)
        look = self.grid.look(0, 0)
        while (yield from self._read(look, self._open(), ground)):
            self._judge(look)
            if not self.open_pairs():
                self.ended = "decided"
                return
            following = self._best(look, ground)
            if following is None:
                break
            look = following
        self.ended = "time"

    # --- what stands ---------------------------------------------------------------------------

    @property
    def leader(self) -> str | None:
        """The best mean of the last look; before there was one, the lowest validation loss."""
        if self.seen is None:
            return next(iter(self.screened.ranked()), None)
        means = self.seen.estimates.means
        place = int(means.argmax() if self.problem.higher_is_better else means.argmin())
        return self.seen.estimates.runs[place].name

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
        """Seconds that the fewest finalists take to a first look."""
        firsts = sorted(
            self._first_cost(one, one.rates[0], ground)
            for one in self.problem.candidates
            if one.rates
        )
        return sum(firsts[-2:])

    def _first_cost(self, one: Candidate, rate: float | None, ground: Ground) -> float:
        look = self.grid.look(0, 0)
        return sum(ground.cost(step) for step in self._reads(one, rate, look))

    def _whole_cost(self, one: Candidate, ground: Ground) -> float:
        look = self.grid.look(0, self.grid.last)
        return sum(ground.cost(step) for step in self._reads(one, self._rate(one), look))

    def _reads(self, one: Candidate, rate: float | None, look: Look) -> list[Read]:
        seeds = range(1, look.seeds + 1) if one.seeded else range(1)
        steps = self.problem.steps if one.rates else 0
        return [Read(one.name, rate, steps, seed, look.examples) for seed in seeds]

    def _rate(self, one: Candidate) -> float | None:
        return self.screened.rate(one.name) if one.rates else None

    def _chosen(self, ground: Ground) -> list[str]:
        """What trains nothing, and as many of the others, by validation loss, as there is time for.

        A prompt alone costs little more than its reading, and is what all others are held against.
        """
        known = {one.name: one for one in self.problem.candidates}
        ranked = self.screened.ranked()
        lowest = self.screened.loss(ranked[0]) if ranked else math.inf
        untrained = [one.name for one in self.problem.candidates if not one.rates]
        chosen: list[str] = []
        time = USED * ground.left()
        used = sum(self._first_cost(known[name], None, ground) for name in untrained)
        for name in ranked:
            own = self._whole_cost(known[name], ground)
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
        return chosen + untrained

    def _aimed(self, ground: Ground) -> Grid:
        """The grid, aimed at the furthest look that all finalists can be brought to.

        All test examples first, then seeds: they cost less than trainings do.
        """
        grid, time = self.grid, USED * ground.left()
        target = (0, 0)
        for levels in [(0, level) for level in range(grid.last + 1)] + [
            (level, grid.last) for level in range(1, _FURTHEST)
        ]:
            if self._cost(grid.look(*levels), ground) > time:
                break
            target = levels
        return replace(grid, target=target)

    def _open(self) -> list[str]:
        """Who is read next: all finalists at first, then the leader and what is open against it."""
        if self.seen is None:
            return self.finalists
        open_pairs = self.open_pairs()
        return [one for one in self.finalists if one == self.leader or one in open_pairs]

    def _read(self, look: Look, methods: Sequence[str], ground: Ground) -> Steps[bool]:
        """Bring methods to a look; whether two of them arrived."""
        known = {one.name: one for one in self.problem.candidates}
        for number in range(look.seeds):  # all methods with a seed before any has the next
            for name in list(methods):
                one = known[name]
                reads = self._reads(one, self._rate(one), look)
                if number >= len(reads) or name not in self.finalists:
                    continue
                step = reads[number]
                if self._has(step):
                    continue
                if ground.cost(step) > ground.left():
                    return False
                scores = yield step
                if scores is None:
                    self._fails(name)
                else:
                    self.scores.setdefault(name, {})[step.seed] = np.asarray(scores)
        return sum(name in self.finalists for name in methods) > 1

    def _has(self, step: Read) -> bool:
        own = self.scores.get(step.method, {}).get(step.seed)
        return own is not None and len(own) >= step.examples

    def _fails(self, name: str) -> None:
        self.finalists.remove(name)
        self.screened.out[name] = "a training of it failed"

    def _judge(self, look: Look) -> None:
        """Take a look at the methods that have been brought to it."""
        runs = [self._runs(name, look) for name in self._open() if name in self.finalists]
        self.seen = look_at(
            look,
            runs,
            margin=self.problem.margin,
            open_pairs=self._still_open(),
            higher_is_better=self.problem.higher_is_better,
        )
        for pair in self.seen.pairs:
            if pair.outcome != "undecided":
                self.decided.setdefault(_key(pair.first, pair.second), (pair, look))

    def _still_open(self) -> int:
        """Pairs of finalists that no look has decided, those that failed since included.

        A look can only be wrong first where all before it were right; then the pairs in which it
        can be wrong are among these.
        """
        started = {*self.finalists, *self.scores}
        return len(started) * (len(started) - 1) // 2 - len(self.decided)

    def _runs(self, name: str, look: Look) -> Runs:
        own = self.scores[name]
        seeds = sorted(own)[: look.seeds]
        known = {one.name: one for one in self.problem.candidates}
        return Runs(
            name,
            np.stack([own[seed][: look.examples] for seed in seeds]),
            aggregate=self.problem.aggregate,
            deterministic=not known[name].seeded,
            bounds=self.problem.bounds,
        )

    def _best(self, look: Look, ground: Ground) -> Look | None:
        """The next look that decides most of the leader's open pairs a second, of those in time."""
        costs = {one: self._cost(one, ground) for one in self.grid.after(look)}
        in_time = [one for one, cost in costs.items() if cost <= ground.left()]
        return max(
            in_time,
            key=lambda one: self._gain(look, one) / max(costs[one], 1e-9),
            default=None,
        )

    def _cost(self, look: Look, ground: Ground) -> float:
        known = {one.name: one for one in self.problem.candidates}
        return sum(
            ground.cost(step)
            for name in self._open()
            for step in self._reads(known[name], self._rate(known[name]), look)
            if not self._has(step)
        )

    def _gain(self, look: Look, following: Look) -> float:
        """How many of the leader's open pairs the next look is expected to decide."""
        seen, leader = self.seen, self.leader
        assert seen is not None and leader is not None
        place = {runs.name: index for index, runs in enumerate(seen.estimates.runs)}
        read = [place[other] for other in self.open_pairs() if other in place]
        return sum(self._chance(seen, place[leader], other, look, following) for other in read)

    def _chance(self, seen: Seen, first: int, second: int, look: Look, following: Look) -> float:
        """That the next look decides a pair: its difference moves as far as it is uncertain now."""
        error = error_of(seen.estimates, first, second)
        sharper = with_more_examples(error, following.examples - look.examples)
        sharper = with_more_seeds(sharper, following.seeds - look.seeds)
        now, then = error.deviation(), sharper.deviation()
        size = abs(float(seen.estimates.means[first] - seen.estimates.means[second]))
        moves = math.sqrt(max(now**2 - then**2, 0.0)) or math.inf
        edge = following.quantile * then
        better = float(special.ndtr((size - edge) / moves))
        within = self.problem.margin - edge
        tied = float(special.ndtr((within - size) / moves)) if within > 0 else 0.0
        return better + tied


def _key(first: str, second: str) -> tuple[str, str]:
    return (first, second) if first < second else (second, first)


def first_examples(whole: int, reading: float, training: float) -> int:
    """Test examples of the first look: all, or of many that take long to read an eighth.

    Args:
        reading: seconds of all of them. training: of a whole training.
    """
    if reading <= CHEAP * training:
        return whole
    return min(whole, max(_LEAST_READ, whole // 8))


def whole_length(
    candidates: Sequence[Candidate],
    most: int,
    ground: Ground,
    seeds: int,
    examples: int,
) -> int:
    """The steps of a whole training with which a screening and a first look are within the time.

    At most `most`; the fewest that mean anything where even these are too many.
    """
    trained = [one for one in candidates if one.rates]
    time = USED * ground.left()

    def seconds(steps: int) -> tuple[float, float]:
        rungs = [max(1, steps // part) for part in RUNGS]
        screens, going = 0.0, list(trained)
        for number, rung in enumerate(rungs):
            costs = {one.name: ground.cost(Train(one.name, one.rates[0], rung)) for one in going}
            if number:  # goes on from the rung before
                before = rungs[number - 1]
                costs = {
                    one.name: max(
                        0.0,
                        costs[one.name] - 0.8 * ground.cost(Train(one.name, one.rates[0], before)),
                    )
                    for one in going
                }
            screens += sum(
                costs[one.name] * (len(one.rates) if not number else 1.5) for one in going
            )
            going = going[: max(LEAST, math.ceil(len(going) / 2))]
        finals = sorted(
            ground.cost(Read(one.name, one.rates[0], steps, 1, examples)) for one in trained
        )
        return screens, seeds * sum(finals[-LEAST:])

    low, high = FEWEST_STEPS, max(most, FEWEST_STEPS)
    while low < high:
        middle = (low + high + 1) // 2
        screens, finals = seconds(middle)
        fits = screens + finals <= time and screens <= (1 - FOR_FINALS) * time
        low, high = (middle, high) if fits else (low, middle - 1)
    return min(low, most)


def follow(steps: Steps[None], do: Any) -> None:
    """Carry out an allocation: `do(step)` returns each step's answer."""
    answer: Any = None
    while True:
        try:
            step: Step = steps.send(answer)
        except StopIteration:
            return
        answer = do(step)


def finalists_in_words(allocation: Allocation) -> Mapping[str, str]:
    """Why each method that is no finalist is none."""
    return dict(allocation.screened.out)
