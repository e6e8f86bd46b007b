"""What is fixed before anything is measured: the length of a whole training, and how much of the
test split the first look reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from peftlab.comparison.within.screening import going_on, rungs
from peftlab.comparison.within.steps import Candidate, Ground, Read, Train
from peftlab.training.config import DECAY

USED = 0.9
"""Of the time, where lengths and finalists are chosen: predictions are not exact."""
FOR_FINALS = 0.5
"""Of that, at least, for whole trainings."""
CHEAP = 0.3
"""Of a training: where reading all test examples takes less, none are left for later."""
_FEWEST_STEPS = 8
_LEAST_READ = 32  # test examples of the first level
_RATES_AGAIN = 1.5  # that a method takes to a further rung, about


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
    time: float,
    seeds: int,
    examples: int,
) -> int:
    """The steps of a whole training with which a screening and a first look are within the time.

    At most `most`; the fewest that mean anything where even these are too many.

    Args:
        time: seconds, of the ground's costs.
    """
    trained = [one for one in candidates if one.rates]
    prompts = sum(
        (seeds if one.seeded else 1) * ground.cost(Read(one.name, None, most, 0, examples))
        for one in candidates
        if not one.rates
    )

    def fits(steps: int) -> bool:
        screens = _screening(trained, steps, ground)
        reads = (Read(one.name, one.rates[0], steps, 1, examples) for one in trained)
        finals = prompts + seeds * sum(sorted(map(ground.cost, reads))[-2:])
        return screens + finals <= time and screens <= (1 - FOR_FINALS) * time

    low, high = _FEWEST_STEPS, max(most, _FEWEST_STEPS)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return min(low, most)


def _screening(trained: Sequence[Candidate], steps: int, ground: Ground) -> float:
    """Seconds of a screening for a whole length."""

    def cost(one: Candidate, rung: int) -> float:
        return ground.cost(Train(one.name, one.rates[0], rung))

    shortest, *longer = rungs(steps)
    total = sum(cost(one, shortest) * len(one.rates) for one in trained)
    going, before = trained, shortest
    for rung in longer:  # each goes on from where the one before began to decay
        going = going[: going_on(len(going))]
        own = (cost(one, rung) - (1 - DECAY) * cost(one, before) for one in going)
        total += _RATES_AGAIN * sum(max(0.0, seconds) for seconds in own)
        before = rung
    return total
