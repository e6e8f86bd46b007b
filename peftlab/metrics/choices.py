"""Metrics of choices by likelihood; their rows come from options' likelihoods, never from texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftlab.metrics.errors import MetricOptionError
from peftlab.metrics.means import MeanOverExamples, column
from peftlab.metrics.registry import Rows

_BINS = 10


class OfChoices:
    """What has no rows of texts."""

    def stored(self, scores: Sequence[float], right: Sequence[bool]) -> Rows:
        """Rows again of what is kept of an example: its score, and whether the choice is right."""
        raise NotImplementedError

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Raises `MetricOptionError`: likelihoods are asked for."""
        raise MetricOptionError(
            "acc, acc_norm, acc_bytes, acc_token, acc_mutual_info and calibration_error are of "
            "choices by likelihood: name the options (-o choices=yes,no), or take accuracy"
        )


class ChosenRight(OfChoices, MeanOverExamples):
    """Share of examples whose likeliest option is right."""

    def stored(self, scores: Sequence[float], right: Sequence[bool]) -> Rows:
        """The scores themselves: 1 or 0."""
        return column(scores)


class CalibrationError(OfChoices):
    """Expected calibration error (Guo et al. 2017, section 2) in ten bins of equal width.

    Rows are the probability that the chosen option has among all of its example, and whether it is
    right, [examples, 2].
    """

    def stored(self, scores: Sequence[float], right: Sequence[bool]) -> Rows:
        """A score is how far the choice's probability is from 1 where it is right, else from 0."""
        off, known = np.array(scores, float), np.array(right, bool)
        return np.column_stack([np.where(known, 1 - off, off), known.astype(float)])

    def aggregate(self, rows: Rows) -> float:
        """Mean distance of confidence and accuracy, bins weighted by their examples."""
        confidence, right = rows.T
        bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        gaps = np.bincount(bins, weights=confidence - right, minlength=_BINS)
        return float(np.abs(gaps).sum() / len(rows))
