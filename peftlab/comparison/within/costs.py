"""What steps of an allocation cost: the plan's predictions, corrected by what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import fmean

from peftlab.comparison.plan import Run
from peftlab.comparison.samples import validations
from peftlab.comparison.within.steps import Step, Train
from peftlab.estimate import Prediction

_FACTORS = (0.3, 10.0)  # what was measured may correct a prediction by so much
_FORKED = 1.0  # seconds that a training takes to begin and end beside its steps


class Costs:
    """Seconds of the steps of one comparison.

    Args:
        runs: of each method. every: steps between validations, of all lengths.
    """

    def __init__(
        self, runs: Mapping[str, Run], predictions: Mapping[str, Prediction], every: int
    ) -> None:
        self.runs, self.every = runs, every
        self.predictions = _all_known(runs, predictions)
        self._filled: set[str] = set()  # what runs keep of the frozen trunk, by `Run.keeps`
        self._took: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def of(self, step: Step, shared: int = 0, have: int = 0) -> float:
        """Expected seconds.

        Args:
            shared: steps that a shorter training has taken. have: test examples that are read.
        """
        return self._factor(step.method) * self._predicted(step, shared, have)

    def took(self, step: Step, seconds: float, shared: int = 0, have: int = 0) -> None:
        """Learn from what a step has really taken."""
        keeps = self.runs[step.method].keeps
        predicted = self._predicted(step, shared, have) + self._unfilled().get(keeps, 0.0)
        self._took[step.method].append((predicted, seconds))
        self._filled.add(keeps)

    @property
    def once(self) -> float:
        """Seconds that it will still take, once, to keep what runs share of the frozen trunk."""
        return sum(self._unfilled().values())

    def foretold(self, method: str, steps: int) -> dict[str, float]:
        """What a record keeps of a prediction, for another length than the plan's."""
        known = self.predictions[method]
        named = known.values()
        told = {n: named[n] for n in _OF_ANY_LENGTH if n in named}
        if known.step_seconds:
            told["train_seconds"] = steps * known.step_seconds + known.filling_seconds
        return told

    def _predicted(self, step: Step, shared: int, have: int) -> float:
        known = self.predictions[step.method]
        if isinstance(step, Train):
            return _FORKED + self._training(step.method, step.steps - shared)
        examples = max(1, len(self.runs[step.method].task.test))
        reading = (known.generate_seconds or 0.0) / examples * (step.examples - have)
        if have:
            return reading + _FORKED
        besides = (known.evaluate_seconds or 0.0) + (known.besides_seconds or 0.0)
        return reading + besides + self._training(step.method, step.steps)

    def _training(self, method: str, steps: int) -> float:
        """Of steps and validations."""
        known, config = self.predictions[method], self.runs[method].config
        planned = max(1, validations(config, config.steps))
        a_validation = (known.validation_seconds or 0.0) / planned
        return steps * (known.step_seconds or 0.0) + a_validation * -(-steps // self.every)

    def _unfilled(self) -> dict[str, float]:
        """By what is kept and is not there yet, the seconds that keeping it takes."""
        most: dict[str, float] = defaultdict(float)
        for method, run in self.runs.items():
            if run.keeps not in self._filled:
                seconds = self.predictions[method].filling_seconds
                most[run.keeps] = max(most[run.keeps], seconds)
        return most

    def _factor(self, method: str) -> float:
        """By how much what was measured exceeds what was predicted, of this method or of all."""
        took = self._took[method] or [one for each in self._took.values() for one in each]
        predicted, measured = (sum(one[i] for one in took) for i in (0, 1))
        if not predicted:
            return 1.0
        return min(max(measured / predicted, _FACTORS[0]), _FACTORS[1])


_OF_ANY_LENGTH = (
    "trainable_parameters", "adapter_bytes", "peak_memory", "step_seconds", "validation_seconds",
)  # fmt: skip


def _all_known(
    runs: Mapping[str, Run], predictions: Mapping[str, Prediction]
) -> dict[str, Prediction]:
    """Predictions of all; of a method without one (a guest) the means of the others'."""
    known = [one for one in predictions.values() if one.step_seconds] or [Prediction(0, 0, 0)]

    def mean(read: Callable[[Prediction], float | None]) -> float:
        return fmean(read(one) or 0.0 for one in known)

    usual = Prediction(
        0, 0, 0,
        step_seconds=mean(lambda one: one.step_seconds),
        validation_seconds=mean(lambda one: one.validation_seconds),
        evaluate_seconds=mean(lambda one: one.evaluate_seconds),
        generate_seconds=mean(lambda one: one.generate_seconds),
        besides_seconds=mean(lambda one: one.besides_seconds),
    )  # fmt: skip
    return {label: predictions.get(label, usual) for label in runs}
