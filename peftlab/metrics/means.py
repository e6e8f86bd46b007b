"""The commonest aggregate: the corpus number is the mean of the examples' scores."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from peftlab.metrics.registry import Rows


class MeanOverExamples:
    """Mixin for metrics whose row is one number, [examples, 1], and whose corpus score its mean."""

    def aggregate(self, rows: Rows) -> float:
        """Mean of the only column."""
        return float(rows[:, 0].mean())


def column(values: Iterable[float]) -> Rows:
    """Scores as rows of width one."""
    return np.fromiter(values, dtype=np.float64).reshape(-1, 1)
