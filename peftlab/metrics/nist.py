"""NIST (Doddington 2002) as mteval-v13a.pl computes it, the script of the E2E challenge.

    NIST = penalty · Σ_n  Σ_matched info(w1…wn) / Σ n-grams predicted,     n = 1…5
    info(w1…wn) = log2( count(w1…w(n-1)) / count(w1…wn) )

Counts are over all references of the corpus (the empty prefix counts every reference word); a
predicted n-gram matches as often as it occurs in the reference that has it most often. The penalty
is exp(β log² min(1, predicted words / reference words)) with β such that a ratio of 2/3 costs half.

"Reference words" is where implementations differ: the Perl script divides all reference words by
the mean number of references per example; e2e-metrics' Python scorer (`-p`) adds up each example's
mean reference length. No library computes either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from peftlab.metrics.inputs import ascii_lower
from peftlab.metrics.ngrams import (
    Floats,
    Ints,
    Ngrams,
    iterate_orders,
    locate,
    read_corpus,
    sum_by,
    tally,
)
from peftlab.metrics.registry import Rows

ORDER = 5
_BETA = math.log(0.5) / math.log(1.5) ** 2


class Nist:
    """Corpus NIST with tokenizer 13a on text whose A–Z are lower-cased.

    Args:
        average_by_example: take the reference length of e2e-metrics' `-p`.

    The information weights are those of the corpus that `statistics` is given and stay as they are
    when its rows are resampled.
    """

    def __init__(self, average_by_example: bool = False) -> None:
        self.average_by_example = average_by_example
        self._tokenize = Tokenizer13a()

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Reference words, references, mean reference length; information matched and n-grams
        predicted per order; [examples, 3 + 2 · 5]."""
        corpus = read_corpus(predictions, references, self._words)
        total = corpus.examples
        words = np.bincount(corpus.example[total:], corpus.lengths[total:], minlength=total)
        count = np.array([len(targets) for targets in references])
        columns = [words, count, words / count]
        of_prefix = np.array([words.sum()])
        for ngrams in iterate_orders(corpus, ORDER):
            seen = np.bincount(ngrams.number[ngrams.text >= total], minlength=ngrams.distinct)
            columns.append(
                _matched(ngrams, _information(ngrams, seen, of_prefix), corpus.example, total)
            )
            columns.append(np.bincount(ngrams.text[ngrams.text < total], minlength=total))
            of_prefix = seen
        return np.stack(columns, axis=1).astype(np.float64)

    def aggregate(self, rows: Rows) -> float:
        """NIST of the summed rows; 0 where nothing was predicted."""
        words, count, averages, *orders = rows.sum(axis=0).tolist()
        wanted = averages if self.average_by_example else words * len(rows) / count
        matched, predicted = orders[0::2], orders[1::2]
        if not predicted[0] or not wanted:
            return 0.0
        ratio = min(1.0, predicted[0] / wanted)
        parts = (gain / size for gain, size in zip(matched, predicted, strict=True) if size)
        return math.exp(_BETA * math.log(ratio) ** 2) * sum(parts)

    def _words(self, text: str) -> list[str]:
        return self._tokenize(ascii_lower(text)).split()


def _information(ngrams: Ngrams, seen: Ints, of_prefix: Ints) -> Floats:
    """Bits of each n-gram, 0 for those that no reference has, [distinct]."""
    prefix = np.zeros(ngrams.distinct, dtype=np.int64)
    prefix[ngrams.number] = ngrams.prefix
    bits = np.zeros(ngrams.distinct)
    known = seen > 0
    bits[known] = np.log2(of_prefix[prefix[known]] / seen[known])
    return bits


def _matched(ngrams: Ngrams, bits: Floats, example: Ints, total: int) -> Floats:
    """Information of the n-grams that each prediction shares with its references, [examples]."""
    counts = tally(ngrams)
    ours = counts.text < total
    keys = example[counts.text] * ngrams.distinct + counts.number
    # of the references of one example, the highest count of an n-gram is what may match
    wanted, where = np.unique(keys[~ours], return_inverse=True)
    most = np.zeros(len(wanted), dtype=np.int64)
    np.maximum.at(most, where, counts.count[~ours])
    hit, place = locate(keys[ours], wanted)
    gain = np.minimum(counts.count[ours][hit], most[place]) * bits[counts.number[ours][hit]]
    return sum_by(counts.text[ours][hit], gain, total)
