"""ROUGE-N, ROUGE-L and ROUGE-Lsum (Lin 2004) through Google's rouge-score.

With several references the one with the highest F counts, per metric and example, which is
rouge-score's `score_multi`. Scores are F1 in 0–1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from peftlab.metrics.means import MeanOverExamples, column
from peftlab.metrics.registry import Rows

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

BOOTSTRAP_SAMPLES = 1000
BOOTSTRAP_SEED = 0


class Rouge(MeanOverExamples):
    """One ROUGE variant.

    Args:
        variant: "rouge1", "rouge2", …, "rougeL" or "rougeLsum" (sentences split at newlines).
        stem: Porter stemming, as most summarisation papers report.
        first_reference: score against the first reference only.
    """

    def __init__(self, variant: str, stem: bool = False, first_reference: bool = False) -> None:
        self.variant = variant
        self.first_reference = first_reference
        self.stem = stem

    @cached_property
    def scorer(self) -> RougeScorer:
        """rouge-score's; with NLTK it takes a second to import, and reading scores needs none."""
        from peftlab.metrics.rouge_scorer import scorer

        return scorer(self.variant, self.stem)

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """F1 against the best reference, [examples, 1]."""
        kept = [targets[:1] if self.first_reference else targets for targets in references]
        pairs = zip(predictions, kept, strict=True)
        return column(
            self.scorer.score_multi(targets, text)[self.variant].fmeasure for text, targets in pairs
        )


class DialogSumRouge(Rouge):
    """ROUGE as the DialogSum baseline prints it (its README, Baseline folder).

    Stemmed, against the first summary only, and not the mean over examples but the median of
    bootstrap means (rouge-score's `BootstrapAggregator`, whose sample is not seeded there; ours
    is, so the number repeats).
    """

    def __init__(self, variant: str) -> None:
        super().__init__(variant, stem=True, first_reference=True)

    def aggregate(self, rows: Rows) -> float:
        """Median over resamples of the mean of each."""
        generator = np.random.default_rng(BOOTSTRAP_SEED)
        samples = generator.integers(len(rows), size=(BOOTSTRAP_SAMPLES, len(rows)))
        return float(np.median(rows[:, 0][samples].mean(axis=1)))
