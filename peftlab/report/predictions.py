"""What was predicted of each method before it ran, beside what was then measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from peftlab.records.figures import FIGURES
from peftlab.records.record import Record
from peftlab.verdict.numbers import percent

PREDICTED = {figure.name: figure for figure in FIGURES if figure.predicted}
"""By the names of `Record.predicted`. Numbers of parameters are formulas, and always right."""


@dataclass(frozen=True)
class Predicted:
    """A method's prediction of one kind, and its measurement; means over seeds."""

    label: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """By how much of what was measured the prediction was above it."""
        return self.predicted / self.measured - 1


def predictions_of(records: Sequence[Record]) -> dict[str, list[Predicted]]:
    """By the names of `PREDICTED`, one a method of those that were predicted and measured."""
    predictions: dict[str, list[Predicted]] = {}
    for key, figure in PREDICTED.items():
        pairs: dict[str, list[tuple[float, float]]] = {}
        for record in records:
            predicted, measured = record.predicted.get(key), figure.of(record)
            if predicted is not None and measured and not figure.shared([record]):
                pairs.setdefault(record.label, []).append((predicted, measured))
        if pairs:
            predictions[key] = [
                Predicted(label, *map(fmean, zip(*seeds, strict=True)))
                for label, seeds in pairs.items()
            ]
    return predictions


def words(records: Sequence[Record]) -> list[str]:
    """How far predictions of memory and time were off, and whose was off furthest."""
    sentences = []
    for key, methods in predictions_of(records).items():
        figure, furthest = PREDICTED[key], max(methods, key=lambda one: abs(one.error))
        if figure.exact:
            continue
        show = figure.unit.said
        sentences.append(
            f"Predictions of {figure.predicted} were off by {percent(_mean_error(methods))} on"
            f" average, at most by {percent(abs(furthest.error))} ({furthest.label}:"
            f" {show(furthest.predicted)} for {show(furthest.measured)})."
        )
    return sentences


def _mean_error(methods: Sequence[Predicted]) -> float:
    return fmean(abs(one.error) for one in methods)
