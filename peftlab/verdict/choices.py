"""Which methods stand out: within limits, frugal, balanced, and on the Pareto fronts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftlab.verdict.entries import COSTS, FRONTS, Entry

FRUGAL_BY = ("trainable_parameters", "adapter_bytes", "peak_memory", "training_seconds", "latency")
BALANCED_BY = ("trainable_parameters", "peak_memory", "training_seconds", "latency")
LEAST_RANGE = 10.0  # costs that differ by less than this factor do not fill the scale
LEAST_GOOD = 0.75  # of the scale of quality: below it a method is cheap, not balanced
LEAST_SPREAD = 0.1  # neither do qualities that differ by less than this share of the best


@dataclass(frozen=True)
class Ranked:
    """Finished methods with their mean quality, the best first."""

    entries: tuple[Entry, ...]
    qualities: tuple[float, ...]
    higher_is_better: bool

    @classmethod
    def of(
        cls, entries: Sequence[Entry], qualities: Mapping[str, float], higher_is_better: bool
    ) -> Ranked:
        """Sort; entries without a quality are left out, equals stay in their order."""
        sign = -1 if higher_is_better else 1
        finished = [entry for entry in entries if entry.name in qualities]
        finished.sort(key=lambda entry: sign * qualities[entry.name])
        return cls(
            entries=tuple(finished),
            qualities=tuple(qualities[entry.name] for entry in finished),
            higher_is_better=higher_is_better,
        )

    def quality(self, name: str) -> float:
        """Mean of that method."""
        names = [entry.name for entry in self.entries]
        return self.qualities[names.index(name)]

    def entry(self, name: str) -> Entry:
        """The entry of that method."""
        return next(entry for entry in self.entries if entry.name == name)

    def loss_of(self, index: int) -> float:
        """How much worse than the best, at least 0, in the metric's units."""
        return abs(self.qualities[index] - self.qualities[0])


def beyond_limits(entry: Entry, limits: Mapping[str, float]) -> tuple[str, ...]:
    """Why an entry is not within the limits; empty when it is."""
    reasons = []
    for name, limit in limits.items():
        value = entry.cost(name)
        if name in entry.others:
            reasons.append(f"{COSTS[name].called} not measured alone on the machine")
        elif value is None:
            reasons.append(f"{COSTS[name].called} not measured")
        elif value > limit:
            reasons.append(COSTS[name].text(value))
    return tuple(reasons)


def most_frugal(ranked: Ranked, within: float) -> str:
    """Of the methods within that share of the best quality, the one that costs least."""
    reach = within * abs(ranked.qualities[0]) * (1 + 1e-9)  # the edge belongs to it
    return cheapest([e for i, e in enumerate(ranked.entries) if ranked.loss_of(i) <= reach]).name


def cheapest(entries: Sequence[Entry]) -> Entry:
    """The one that costs least; the first of equals.

    Fewest trainable parameters; among equals the smaller adapter, then memory, time and latency.
    What was not measured counts as dearest; by what others disturbed in one of them none is judged.
    """
    fair = [name for name in FRUGAL_BY if not any(name in entry.others for entry in entries)]
    return min(entries, key=lambda entry: [_cost(entry, name) for name in fair])


def balances(ranked: Ranked) -> dict[str, float]:
    """The harmonic mean of quality and frugality, both on a scale of 0 to 1; the highest first.

    Quality falls from 1 at the best to 0 at the worst; frugality is the mean, over the costs that
    all have, of how cheap a method is on a logarithmic scale from the cheapest to the dearest.
    Methods whose quality is below `LEAST_GOOD` are left out, as a harmonic mean would still prefer
    the cheapest of them to what costs most; without a cost that all have, nothing is in it.
    """
    spread = max(ranked.loss_of(len(ranked.entries) - 1), LEAST_SPREAD * abs(ranked.qualities[0]))
    columns = [[_cost(entry, name) for entry in ranked.entries] for name in BALANCED_BY]
    columns = [_cheapness(costs) for costs in columns if all(map(math.isfinite, costs))]
    scores: dict[str, float] = {}
    for index, entry in enumerate(ranked.entries if columns else ()):
        good = 1 - ranked.loss_of(index) / spread if spread else 1.0
        cheap = sum(column[index] for column in columns) / max(len(columns), 1)
        if good >= LEAST_GOOD:
            scores[entry.name] = 2 * good * cheap / (good + cheap)
    return dict(sorted(scores.items(), key=lambda one: -one[1]))


def fronts(ranked: Ranked) -> dict[str, tuple[str, ...]]:
    """For each cost, the methods that no other beats in quality without costing more.

    Cheapest first; methods whose cost was not measured are left out, and a cost that nobody has.
    """
    front_of = {}
    for name in FRONTS:
        places = [
            (cost, ranked.loss_of(i), entry.name)
            for i, entry in enumerate(ranked.entries)
            if math.isfinite(cost := _cost(entry, name))
        ]
        front: list[tuple[float, float, str]] = []
        for place in sorted(places, key=lambda place: place[:2]):  # the cheapest first
            if not front or place[1] < front[-1][1] or place[:2] == front[-1][:2]:
                front.append(place)
        if front:
            front_of[name] = tuple(one for _, _, one in front)
    return front_of


def _cost(entry: Entry, name: str) -> float:
    value = entry.cost(name)
    return math.inf if value is None else float(value)


def _cheapness(costs: Sequence[float]) -> list[float]:
    """1 for the cheapest, 0 for the dearest if at least ten times as dear.

    What costs nothing counts as a tenth of the next.
    """
    floor = min((cost for cost in costs if cost > 0), default=1.0) / LEAST_RANGE
    logarithms = [math.log(max(cost, floor)) for cost in costs]
    low, high = min(logarithms), max(logarithms)
    scale = max(high - low, math.log(LEAST_RANGE))
    return [1 - (value - low) / scale for value in logarithms]
