"""What was predicted of each method before it ran, beside what was then measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from peftlab.records.record import Record
from peftlab.units import size
from peftlab.verdict.numbers import duration, percent


@dataclass(frozen=True)
class Kind:
    """Something that is predicted: its name in words, where it is measured, how it is shown."""

    name: str
    measured: Callable[[Record], float | None]
    show: Callable[[float], str]


KINDS = {
    "peak_memory": Kind("peak memory", lambda record: record.peak_memory.train, size),
    "train_seconds": Kind("training time", lambda record: record.seconds.train, duration),
    "adapter_bytes": Kind("adapter size", lambda record: record.bytes, size),
}
"""By the names of `Record.predicted`. Numbers of parameters are formulas, and always right."""


@dataclass(frozen=True)
class Foretold:
    """A method's prediction of one kind, and its measurement; means over seeds."""

    label: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """By how much of what was measured the prediction was above it."""
        return self.predicted / self.measured - 1


def foretold(records: Sequence[Record]) -> dict[str, list[Foretold]]:
    """By the names of `KINDS`, one a method of those that were predicted and measured."""
    found: dict[str, list[Foretold]] = {}
    for key, kind in KINDS.items():
        pairs: dict[str, list[tuple[float, float]]] = {}
        for record in records:
            predicted, measured = record.predicted.get(key), kind.measured(record)
            if predicted is not None and measured:
                pairs.setdefault(record.label, []).append((predicted, measured))
        if pairs:
            found[key] = [
                Foretold(label, *map(fmean, zip(*seeds, strict=True)))
                for label, seeds in pairs.items()
            ]
    return found


def words(records: Sequence[Record]) -> list[str]:
    """How far predictions of memory and time were off, and whose was off furthest."""
    found = []
    for key, methods in foretold(records).items():
        if key not in ("peak_memory", "train_seconds"):
            continue
        kind, furthest = KINDS[key], max(methods, key=lambda one: abs(one.error))
        found.append(
            f"Predictions of {kind.name} were off by {percent(_mean_error(methods))} on average,"
            f" at most by {percent(abs(furthest.error))} ({furthest.label}:"
            f" {kind.show(furthest.predicted)} for {kind.show(furthest.measured)})."
        )
    return found


def _mean_error(methods: Sequence[Foretold]) -> float:
    return fmean(abs(one.error) for one in methods)
