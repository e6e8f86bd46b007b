"""Which rates and methods go on: successive halving by validation loss, across methods.

After each rung half of the methods go on (Jamieson & Talwalkar 2016, arXiv:1502.07943, algorithm
1), and those that are hardly behind. Nothing here has seen a test example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from peftlab.comparison.within.steps import Candidate, Ground, Steps, Train

HARDLY = 0.02  # of the loss: less is not told apart by a short training
LEAST = 3  # methods that go on from any rung
_PARTS = (6, 3)  # of the whole length that methods are screened at


def rungs(steps: int) -> list[int]:
    """Steps of the trainings that screen for a whole length, the shortest first."""
    return [max(1, steps // part) for part in _PARTS]


def going_on(methods: int) -> int:
    """How many of so many go on from a rung, if no others are hardly behind."""
    return max(LEAST, math.ceil(methods / 2))


@dataclass
class Screened:
    """What came of it.

    Attributes:
        losses: by method, steps and rate; infinite where a training failed or diverged.
        out: by method, why it did not go on.
    """

    losses: dict[str, dict[int, dict[float, float]]] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)

    def add(self, step: Train, loss: float | None) -> None:
        """What a training came to; None where it failed."""
        own = self.losses.setdefault(step.method, {}).setdefault(step.steps, {})
        own[step.rate] = loss if loss is not None and math.isfinite(loss) else math.inf

    def steps(self, method: str) -> int:
        """The longest that it came to, and that all have come to which are not out.

        Time may end inside a rung; a loss of a longer training says nothing beside shorter ones.
        """
        going = [max(own) for other, own in self.losses.items() if other not in self.out]
        own = self.losses.get(method, {})
        return max((at for at in own if at <= min(going, default=at)), default=0)

    def loss(self, method: str) -> float:
        """The lowest there; infinite where nothing was reached."""
        own = self.losses.get(method, {}).get(self.steps(method), {})
        return min(own.values(), default=math.inf)

    def longest(self, method: str) -> dict[float, float]:
        """By rate, the losses of its longest trainings, whatever others have come to."""
        return self.losses[method][max(self.losses[method])]

    def rate(self, method: str) -> float:
        """The rate of the lowest of these, or a lower one that is hardly behind: a longer training
        wants a lower rate than a short one.
        """
        own = self.longest(method)
        reach = min(own.values()) * (1 + HARDLY)
        return min(rate for rate, loss in own.items() if loss <= reach)

    def ranked(self) -> list[str]:
        """The methods that came to a loss and are not out, the lowest loss first."""
        reached = (m for m in self.losses if m not in self.out and math.isfinite(self.loss(m)))
        return sorted(reached, key=self.loss)


def screening(
    screened: Screened,
    candidates: Sequence[Candidate],
    whole: int,
    ground: Ground,
    reserve: float,
) -> Steps[None]:
    """Take the methods up the rungs, as far as the time allows.

    Args:
        screened: takes what comes of it, step by step.
        whole: steps of a whole training.
        reserve: seconds that are kept for what comes after.
    """
    rates = {one.name: list(one.rates) for one in candidates if one.rates}
    lengths = rungs(whole)
    for number, steps in enumerate(lengths):
        for method, rate in _in_turn(rates):
            step = Train(method, rate, steps)
            if ground.cost(step) > ground.left() - reserve:
                if not number and rate == rates[method][0]:
                    screened.out[method] = "no time was left to train it"
                continue
            screened.add(step, (yield step))
        _leave_diverged(screened)
        if not _all_reached(screened, rates, steps):
            break
        rates = _go_on(screened, last=number == len(lengths) - 1)


def _in_turn(rates: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, float]]:
    """The first rate of every method, then the second: something is known of all soon."""
    for number in range(max(map(len, rates.values()), default=0)):
        for method, own in rates.items():
            if number < len(own):
                yield method, own[number]


def _leave_diverged(screened: Screened) -> None:
    """Whatever has no finite loss at its longest length is out."""
    for method in screened.losses:
        if not any(map(math.isfinite, screened.longest(method).values())):
            screened.out.setdefault(method, "no training of it came to a finite loss")


def _all_reached(screened: Screened, rates: Mapping[str, Sequence[float]], steps: int) -> bool:
    """Whether every method that goes on has been there, with one rate at least."""
    return all(
        steps in screened.losses[method]
        for method in rates
        if method not in screened.out and method in screened.losses
    )


def _go_on(screened: Screened, last: bool) -> dict[str, list[float]]:
    """The methods and rates of the next rung."""
    ranked = screened.ranked()
    kept = ranked[: going_on(len(ranked))]
    if kept and not last:
        reach = screened.loss(kept[-1]) * (1 + HARDLY)
        best = screened.loss(ranked[0])
        for method in ranked[len(kept) :]:
            if screened.loss(method) > reach:
                screened.out[method] = (
                    f"its validation loss after {screened.steps(method)} steps is "
                    f"{screened.loss(method):.3f}, the lowest {best:.3f}"
                )
    going = [method for method in ranked if method not in screened.out]
    return {method: _rates_again(screened, method) for method in going}


def _rates_again(screened: Screened, method: str) -> list[float]:
    """The best rate and the next lower one, which may overtake it in a longer training."""
    own = screened.longest(method)
    best = min(own, key=own.__getitem__)
    lower = [rate for rate in sorted(own, reverse=True) if rate < best]
    return [best, *lower[:1]]
