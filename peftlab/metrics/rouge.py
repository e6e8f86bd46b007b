"""ROUGE-N, ROUGE-L and ROUGE-Lsum (Lin 2004) through Google's rouge-score.

With several references the one with the highest F counts, per metric and example, which is
rouge-score's `score_multi`. Scores are F1 in 0–1.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from peftlab.errors import nearest
from peftlab.metrics.errors import MetricOptionError, MetricWarning
from peftlab.metrics.means import MeanOverExamples, column
from peftlab.metrics.registry import Rows
from peftlab.metrics.words import unseen_by_google

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

TOKENIZERS = ("google", "unicode")
BOOTSTRAP_SAMPLES = 1000
BOOTSTRAP_SEED = 0


class Rouge(MeanOverExamples):
    """One ROUGE variant.

    Args:
        variant: "rouge1", "rouge2", …, "rougeL" or "rougeLsum" (sentences split at newlines).
        stem: Porter stemming, as most summarisation papers report.
        first_reference: score against the first reference only.
        tokenizer: "google" takes runs of a–z and 0–9 for tokens and drops all else, as the official
            scorer; "unicode" takes the words of any script (`unicode_words`).

    Raises:
        MetricOptionError: another tokenizer, or stemming, which is for English, of Unicode's words.
    """

    def __init__(
        self,
        variant: str,
        stem: bool = False,
        first_reference: bool = False,
        tokenizer: str = "google",
    ) -> None:
        if tokenizer not in TOKENIZERS:
            raise MetricOptionError(
                f"{variant} has no tokenizer {tokenizer!r}; expected {' or '.join(TOKENIZERS)}."
                f"{nearest(str(tokenizer), TOKENIZERS)}"
            )
        if stem and tokenizer == "unicode":
            raise MetricOptionError(
                f"{variant}-stem stems English words, so it has no tokenizer=unicode; take"
                f" {variant}:tokenizer=unicode"
            )
        self.variant = variant
        self.first_reference = first_reference
        self.stem = stem
        self.tokenizer = tokenizer

    @cached_property
    def scorer(self) -> RougeScorer:
        """rouge-score's; with NLTK it takes a second to import, and reading scores needs none."""
        from peftlab.metrics.rouge_scorer import scorer

        return scorer(self.variant, self.stem, unicode=self.tokenizer == "unicode")

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """F1 against the best reference, [examples, 1]."""
        kept = [targets[:1] if self.first_reference else targets for targets in references]
        self._warn_of_other_scripts(kept)
        pairs = zip(predictions, kept, strict=True)
        return column(
            self.scorer.score_multi(targets, text)[self.variant].fmeasure for text, targets in pairs
        )

    def _warn_of_other_scripts(self, references: Sequence[Sequence[str]]) -> None:
        """Say that every score is 0 where no reference has a token."""
        if self.tokenizer == "google" and unseen_by_google(chain.from_iterable(references)):
            warnings.warn(
                f"no reference has a letter of a–z or a digit, so {self.variant} is 0 whatever is"
                f" predicted; take {self.variant}:tokenizer=unicode",
                MetricWarning,
                stacklevel=4,
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
