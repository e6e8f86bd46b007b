"""A prediction, and its error once the run has been measured."""

from __future__ import annotations

from dataclasses import dataclass

from peftlab.estimate.pace import Pace
from peftlab.methods import Count

_BYTES = 4  # of a stored number
_HEADER = 1500  # bytes of an adapter's JSON and of its tensors' names, about


@dataclass(frozen=True)
class Prediction:
    """What one run of a method is expected to cost. None: not predicted, or nothing is trained.

    Attributes:
        trainable, stored: numbers, by the method's closed formula.
        adapter_bytes: of the saved adapter.
        peak_memory: in training, of the process, as `measure` takes it; bytes.
        step_seconds: of a warm optimiser step. train_seconds: of all steps.
        filling_seconds: what of these keeping the frozen trunk's activations takes, which other
            runs of the comparison find then.
        search_seconds: of the trials for the rate, if none is ended early.
        pace: of evaluation. validation_seconds, evaluate_seconds, generate_seconds: of validations
            in training, final losses, and texts. besides_seconds: of what is none of these: loading
            the base, forgetting, latency. None: not asked.
        busy: other programs took much of the processor meanwhile, so seconds may be far off.
    """

    trainable: int
    stored: int
    adapter_bytes: int
    peak_memory: float | None = None
    step_seconds: float | None = None
    train_seconds: float | None = None
    filling_seconds: float = 0.0
    search_seconds: float = 0.0
    pace: Pace | None = None
    validation_seconds: float | None = None
    evaluate_seconds: float | None = None
    generate_seconds: float | None = None
    besides_seconds: float | None = None
    busy: bool = False

    @classmethod
    def counted(cls, count: Count) -> Prediction:
        """Of what a closed formula knows."""
        return cls(count.trainable, count.stored, _BYTES * count.stored + _HEADER)

    @property
    def evaluation_seconds(self) -> float:
        """Of validations, final losses and texts."""
        parts = (self.validation_seconds, self.evaluate_seconds, self.generate_seconds)
        return sum(part or 0.0 for part in parts)

    @property
    def run_seconds(self) -> float | None:
        """Of a whole run without the search for its rate."""
        if self.besides_seconds is None:
            return None
        return (self.train_seconds or 0.0) + self.evaluation_seconds + self.besides_seconds

    def values(self) -> dict[str, float]:
        """What a record keeps."""
        named = {
            "trainable_parameters": self.trainable,
            "adapter_bytes": self.adapter_bytes if self.stored else None,  # else it is text
            "peak_memory": self.peak_memory,
            "step_seconds": self.step_seconds,
            "train_seconds": self.train_seconds,
            "validation_seconds": self.validation_seconds,
            "evaluate_seconds": self.evaluate_seconds,
            "generate_seconds": self.generate_seconds,
            "run_seconds": self.run_seconds,
        }
        return {name: float(value) for name, value in named.items() if value is not None}


def errors(predicted: dict[str, float], measured: dict[str, float | None]) -> dict[str, float]:
    """By how much of what was measured a prediction was above it, as `…_error`."""
    return {
        f"{name}_error": value / actual - 1
        for name, value in predicted.items()
        if (actual := measured.get(name))
    }
