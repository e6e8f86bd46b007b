"""A prediction, the limits it is held against, and its error once the run has been measured."""

from __future__ import annotations

from dataclasses import dataclass

from peftlab.errors import InputError
from peftlab.methods import Count
from peftlab.units import size

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
        search_seconds: of the trials for the rate, if none is ended early.
        busy: other programs took much of the processor meanwhile, so seconds may be far off.
    """

    trainable: int
    stored: int
    adapter_bytes: int
    peak_memory: float | None = None
    step_seconds: float | None = None
    train_seconds: float | None = None
    search_seconds: float = 0.0
    busy: bool = False

    @classmethod
    def counted(cls, count: Count) -> Prediction:
        """Of what a closed formula knows."""
        return cls(count.trainable, count.stored, _BYTES * count.stored + _HEADER)

    def values(self) -> dict[str, float]:
        """What a record keeps."""
        named = {
            "trainable_parameters": self.trainable,
            "adapter_bytes": self.adapter_bytes if self.stored else None,  # else it is text
            "peak_memory": self.peak_memory,
            "step_seconds": self.step_seconds,
            "train_seconds": self.train_seconds,
        }
        return {name: float(value) for name, value in named.items() if value is not None}


def errors(predicted: dict[str, float], measured: dict[str, float | None]) -> dict[str, float]:
    """By how much of what was measured a prediction was above it, as `…_error`."""
    return {
        f"{name}_error": value / actual - 1
        for name, value in predicted.items()
        if (actual := measured.get(name))
    }


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a method may be predicted to cost; None is no limit.

    Attributes:
        memory, adapter: bytes. seconds: of training, the search for the rate included.
    """

    memory: float | None = None
    adapter: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise InputError(f"the limit on {name} is {value}; more than 0 was expected")

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def reason(self, predicted: Prediction) -> str | None:
        """Why a method will not fit; None when it will."""
        time = (predicted.train_seconds or 0.0) + predicted.search_seconds
        found = []
        if self.memory is not None and (predicted.peak_memory or 0) > self.memory:
            found.append(f"{size(predicted.peak_memory or 0)} of memory, above {size(self.memory)}")
        if self.adapter is not None and predicted.adapter_bytes > self.adapter:
            found.append(
                f"an adapter of {size(predicted.adapter_bytes)}, above {size(self.adapter)}"
            )
        if self.seconds is not None and time > self.seconds:
            found.append(f"{time:,.0f} s of training, above {self.seconds:,.0f} s")
        return f"predicted to take {' and '.join(found)}" if found else None
