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
        losses: by method and rate, of the longest rung that was reached: steps and loss.
        out: by method, why it did not go on.
    """

    losses: dict[str, dict[float, tuple[int, float]]] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)

    def steps(self, method: str) -> int:
        """Of its longest rung."""
        return max((steps for steps, _ in self.losses.get(method, {}).values()), default=0)

    def at_longest(self, method: str) -> dict[float, float]:
        """By rate, the losses there."""
        longest = self.steps(method)
        own = self.losses.get(method, {})
        return {rate: loss for rate, (steps, loss) in own.items() if steps == longest}

    def loss(self, method: str) -> float:
        """The lowest of them; infinite where nothing was reached."""
        return min(self.at_longest(method).values(), default=math.inf)

    def rate(self, method: str) -> float:
        """The rate of the lowest loss, or a lower one that is hardly behind: a longer training
        wants a lower rate than a short one.
        """
        reach = self.loss(method) * (1 + HARDLY)
        return min(rate for rate, loss in self.at_longest(method).items() if loss <= reach)

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
            loss = yield step
            own = screened.losses.setdefault(method, {})
            if loss is not None and math.isfinite(loss):
                own[rate] = (steps, float(loss))
        if not _all_reached(screened, rates, steps):
            break
        rates = _go_on(screened, last=number == len(lengths) - 1)
    for method in screened.losses:
        if math.isinf(screened.loss(method)):
            screened.out.setdefault(method, "no training of it came to a finite loss")


def _in_turn(rates: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, float]]:
    """The first rate of every method, then the second: something is known of all soon."""
    for number in range(max(map(len, rates.values()), default=0)):
        for method, own in rates.items():
            if number < len(own):
                yield method, own[number]


def _all_reached(screened: Screened, rates: Mapping[str, Sequence[float]], steps: int) -> bool:
    """Whether every method that went on has been there, with one rate at least."""
    return all(
        any(at == steps for at, _ in screened.losses.get(method, {}).values())
        for method in rates
        if method not in screened.out and screened.losses.get(method)
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
    own = screened.at_longest(method)
    best = min(own, key=own.__getitem__)
    lower = [rate for rate in sorted(own, reverse=True) if rate < best]
    return [best, *lower[:1]]
