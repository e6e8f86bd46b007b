"""Metrics of answers that are right or wrong: exact match, accuracy and macro F1 of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftlab.metrics.means import MeanOverExamples, column
from peftlab.metrics.registry import Rows


class ExactMatch(MeanOverExamples):
    """Share of predictions that equal one of their references.

    Args:
        fold: compare case-folded, with each run of white space as one blank. White space at the
            ends never counts.
    """

    def __init__(self, fold: bool = False) -> None:
        self.fold = fold

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """1 where the prediction is one of the references, else 0."""
        pairs = zip(predictions, references, strict=True)
        return column(
            self._normal(text) in {self._normal(target) for target in targets}
            for text, targets in pairs
        )

    def _normal(self, text: str) -> str:
        return " ".join(text.casefold().split()) if self.fold else text.strip()


class MacroF1:
    """Mean over labels of the F1 of each label.

    The labels are those that occur among references or predictions, as scikit-learn takes them by
    default. Where an example allows several labels, the predicted one counts as the true one if it
    is among them, else the first.
    """

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Number of the true label and of the predicted one, [examples, 2]."""
        numbers: dict[str, int] = {}
        rows = np.empty((len(predictions), 2))
        for row, (text, targets) in enumerate(zip(predictions, references, strict=True)):
            guess = text.strip()
            allowed = [target.strip() for target in targets]
            truth = guess if guess in allowed else allowed[0]
            rows[row] = [numbers.setdefault(label, len(numbers)) for label in (truth, guess)]
        return rows

    def aggregate(self, rows: Rows) -> float:
        """Macro F1 over the labels that occur in these rows."""
        labels, positions = np.unique(rows, return_inverse=True)
        truth, guess = positions.reshape(rows.shape).T
        right = np.bincount(truth[truth == guess], minlength=len(labels))
        seen = np.bincount(truth, minlength=len(labels)) + np.bincount(guess, minlength=len(labels))
        return float((2 * right / seen).mean())
