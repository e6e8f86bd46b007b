"""BLEU (Papineni et al. 2002) and chrF (Popović 2015) through sacrebleu; scores in 0–100.

Conventions of BLEU, each by name (docs/metrics.md says where each comes from):

- `bleu`: sacrebleu's default, cased, tokenizer 13a.
- `bleu-e2e`: tokenizer 13a, A–Z lower-cased: what mteval-v13a of the E2E challenge computes.
- `bleu-webnlg`, `bleu-dart`: multi-bleu.perl on text that is already tokenized. It is given one
  file per reference, with empty lines where an example has fewer references, and takes an empty
  line for a reference of length 0, which weakens the brevity penalty. It does not smooth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from peftlab.metrics.bleu_tokenizers import check_tokenizer
from peftlab.metrics.inputs import ascii_lower
from peftlab.metrics.registry import Rows

ORDER = 4


class Bleu:
    """Corpus BLEU.

    Args:
        lowercase: compare lower-cased text.
        mteval: as mteval-v13a.pl: A–Z alone are lower-cased, and an order of which the predictions
            have no n-gram at all counts as matched (sacrebleu gives 0).
        tokenize: name of a sacrebleu tokenizer (`TOKENIZERS`).
        pad_references: give every example as many references as the one that has most, by empty
            ones.
        smoothing: sacrebleu's name of what is done when an order has no match at all.

    Raises:
        MetricOptionError: no such tokenizer.
        MetricUnavailableError: the tokenizer's package or model is not here.
    """

    def __init__(
        self,
        lowercase: bool = False,
        mteval: bool = False,
        tokenize: str = "13a",
        pad_references: bool = False,
        smoothing: str = "exp",
    ) -> None:
        check_tokenizer(str(tokenize))
        # effective_order concerns only the sentence score, which is not used: it spares a warning
        self.scorer = BLEU(
            lowercase=lowercase, tokenize=str(tokenize), force=True, effective_order=True
        )
        self.mteval = mteval
        self.pad_references = pad_references
        self.smoothing = smoothing

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Predicted length, reference length, matches of order 1–4, n-grams of order 1–4."""
        widest = max(map(len, references)) if self.pad_references else 0
        rows = np.empty((len(predictions), 2 + 2 * ORDER))
        for row, (text, targets) in enumerate(zip(predictions, references, strict=True)):
            padded = [*targets, *[""] * (widest - len(targets))]
            if self.mteval:
                text, padded = ascii_lower(text), [ascii_lower(target) for target in padded]
            score = self.scorer.sentence_score(text, padded)
            rows[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
        return rows

    def aggregate(self, rows: Rows) -> float:
        """BLEU of the summed counts."""
        ours, theirs, *counts = rows.sum(axis=0).astype(int).tolist()
        correct, total = counts[:ORDER], counts[ORDER:]
        if self.mteval and ours:
            correct = [matched if size else 1 for matched, size in zip(correct, total, strict=True)]
            total = [size or 1 for size in total]
        score = BLEU.compute_bleu(
            correct=correct,
            total=total,
            sys_len=ours,
            ref_len=theirs,
            smooth_method=self.smoothing,
        )
        return float(score.score)


class ChrF(CHRF):
    """Corpus chrF2 (character order 6); with `word_order=2`, chrF++.

    A subclass because sacrebleu's per-segment statistics, which a bootstrap needs, are for
    subclasses only.
    """

    def __init__(self, word_order: int = 0) -> None:
        super().__init__(word_order=word_order)

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """N-grams of prediction, of best reference, matches, per order; [examples, 3·orders]."""
        rows = np.empty((len(predictions), 3 * (self.char_order + self.word_order)))
        for row, (text, targets) in enumerate(zip(predictions, references, strict=True)):
            columns = [[target] for target in targets]
            rows[row] = self._extract_corpus_statistics([text], columns)[0]
        return rows

    def aggregate(self, rows: Rows) -> float:
        """chrF of the summed counts."""
        return float(self._compute_score_from_stats(rows.sum(axis=0).astype(int).tolist()).score)
