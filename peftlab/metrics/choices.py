"""Metrics of choices by likelihood; their rows come from options' likelihoods, never from texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftlab.metrics.errors import MetricOptionError
from peftlab.metrics.means import MeanOverExamples
from peftlab.metrics.registry import Rows

_BINS = 10


class _OfChoices:
    """What has no rows of texts."""

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Raises `MetricOptionError`: likelihoods are asked for."""
        raise MetricOptionError(
            "acc, acc_norm, acc_bytes, acc_token, acc_mutual_info and calibration_error are of "
            "choices by likelihood: name the options (-o choices=yes,no), or take accuracy"
        )


class ChosenRight(_OfChoices, MeanOverExamples):
    """Share of examples whose likeliest option is right."""


class CalibrationError(_OfChoices):
    """Expected calibration error (Guo et al. 2017, section 2) in ten bins of equal width.

    Rows are the probability that the chosen option has among all of its example, and whether it is
    right, [examples, 2].
    """

    def aggregate(self, rows: Rows) -> float:
        """Mean distance of confidence and accuracy, bins weighted by their examples."""
        confidence, right = rows.T
        bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        gaps = np.bincount(bins, weights=confidence - right, minlength=_BINS)
        return float(np.abs(gaps).sum() / len(rows))
