"""CIDEr-D (Vedantam et al. 2015) and ROUGE-L as the COCO caption evaluation computes them.

Both work on Penn Treebank tokens without punctuation. This follows the definitions of
pycocoevalcap 1.2 (cider/cider_scorer.py, rouge/rouge.py), which keeps every n-gram of every
reference in memory; here they are counted with arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import LCSseq

from peftlab.metrics.means import MeanOverExamples, column
from peftlab.metrics.ngrams import (
    Corpus,
    Floats,
    Ngrams,
    Tally,
    iterate_orders,
    locate,
    read_corpus,
    sum_by,
    tally,
)
from peftlab.metrics.ptb import ptb_tokens
from peftlab.metrics.registry import Rows

ORDER = 4
_SIGMA = 6.0
_BETA = 1.2


class Cider(MeanOverExamples):
    """CIDEr: mean over orders 1–4 and references of the clipped tf-idf cosine, times 10.

    Document frequencies are those of the references that `statistics` is given. With a single
    example every weight, and so the score, is 0, as officially.
    """

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """CIDEr of each example, [examples, 1]."""
        corpus = read_corpus(predictions, references, ptb_tokens)
        total = corpus.examples
        example = corpus.example[total:]
        cosines = np.zeros(len(example))
        for ngrams in iterate_orders(corpus, ORDER):
            cosines += _cosines(corpus, ngrams)
        # the official length is the number of bigrams
        bigrams = np.maximum(corpus.lengths - 1, 0)
        gap = bigrams[:total][example] - bigrams[total:]
        similar = cosines / ORDER * np.exp(-(gap**2) / (2 * _SIGMA**2))
        summed = sum_by(example, similar, total)
        return column(10 * summed / np.bincount(example, minlength=total))


def _cosines(corpus: Corpus, ngrams: Ngrams) -> Floats:
    """Clipped cosine of each reference with its prediction for one order, [references]."""
    total = corpus.examples
    counts = tally(ngrams)
    weight = counts.count * _inverse_frequency(corpus, ngrams, counts)[counts.number]
    norm = np.sqrt(sum_by(counts.text, weight**2, len(corpus.lengths)))
    theirs = counts.text >= total
    example = corpus.example[counts.text]
    keys = example * ngrams.distinct + counts.number
    hit, place = locate(keys[theirs], keys[~theirs])
    wanted = weight[theirs][hit]
    shared = np.minimum(weight[~theirs][place], wanted) * wanted
    dots = sum_by(counts.text[theirs][hit] - total, shared, len(norm) - total)
    scale = norm[total:] * norm[:total][corpus.example[total:]]
    return np.divide(dots, scale, out=np.zeros_like(dots), where=scale != 0)


def _inverse_frequency(corpus: Corpus, ngrams: Ngrams, counts: Tally) -> Floats:
    """log(N / examples whose references have the n-gram), N if none has, [distinct]."""
    theirs = counts.text >= corpus.examples
    keys = corpus.example[counts.text[theirs]] * ngrams.distinct + counts.number[theirs]
    inside = np.unique(keys) % max(ngrams.distinct, 1)
    frequency = np.bincount(inside, minlength=ngrams.distinct)
    return np.log(corpus.examples) - np.log(np.maximum(1.0, frequency))


class CocoRougeL(MeanOverExamples):
    """COCO's ROUGE-L: F with β = 1.2 of the best precision and the best recall over references.

    Not rouge-score's rougeL, which takes the F1 of one reference, on other tokens.
    """

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """F of each example, [examples, 1]."""
        pairs = zip(predictions, references, strict=True)
        return column(self._score(text, targets) for text, targets in pairs)

    def _score(self, prediction: str, targets: Sequence[str]) -> float:
        # officially an empty text is one empty token
        words = ptb_tokens(prediction) or [""]
        wanted = [ptb_tokens(target) or [""] for target in targets]
        common = [LCSseq.similarity(words, target) for target in wanted]
        precision = max(common) / len(words)
        recall = max(size / len(target) for size, target in zip(common, wanted, strict=True))
        if not precision:
            return 0.0
        return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
