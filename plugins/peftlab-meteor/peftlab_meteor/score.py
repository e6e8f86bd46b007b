# SPDX-License-Identifier: LGPL-2.1-only
# Ported in 2026 from METEOR 1.5, Copyright (C) 2004, 2010 Carnegie Mellon University: see NOTICE.
"""METEOR 1.5 for English, ranking task: statistics of a corpus and the score of statistics.

    P, R   = matched words over words, weighted by module and by δ (content) or 1 − δ (function)
    F      = 1 / ((1 − α) / P + α / R)
    METEOR = F · (1 − γ · (chunks / matches)^β)

Of several references the one with the highest score counts, with its statistics; the corpus score
is that of the summed statistics, not a mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from peftlab.metrics import Rows
from peftlab.metrics.ptb import ptb_tokens
from peftlab_meteor.align import Lexicon, Line, align, count_chunks, phrases_of
from peftlab_meteor.normalize import Normalizer
from peftlab_meteor.tables import find_release, make_stem, read_paraphrases, read_words

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
"""Exact, stem, synonym, paraphrase."""
BLOCK = 1_500_000
"""Characters of text whose phrases of up to seven words take about 250 MB."""


class Meteor:
    """METEOR 1.5.

    Args:
        coco: tokenize as the COCO caption evaluation does first (Treebank tokens without
            punctuation), which is what the E2E challenge reports.
        folder: where an official release lies; by default the one inside pycocoevalcap.
    """

    def __init__(self, coco: bool = False, folder: str | None = None) -> None:
        self.release = find_release(folder)
        self.coco = coco
        self.words = read_words(self.release)
        self.normalizer = Normalizer(self.words.prefixes, self.words.numeric_prefixes)
        self._stem = lru_cache(maxsize=None)(make_stem())
        self._meanings = lru_cache(maxsize=None)(self.words.meanings)

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Of the best reference: words and function words of prediction and reference, matched
        content and function words of both per module, chunks; [examples, 4 + 4 · 4 + 1]."""
        pairs = [*zip(predictions, references, strict=True)]
        blocks = (self._block_statistics(block) for block in _blocks(pairs))
        return np.concatenate([*blocks])

    def _block_statistics(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> Rows:
        """Statistics of some examples, whose phrases are looked up together."""
        lines = [
            (self._tokens(text), [self._tokens(target) for target in targets])
            for text, targets in pairs
        ]
        phrases = {
            text.encode()
            for line1, targets in lines
            for line in (line1, *targets)
            for _, _, text in phrases_of(line)
        }
        paraphrases = read_paraphrases(self.release).among(phrases)
        lexicon = Lexicon(self._stem, self._meanings, paraphrases)
        rows = np.empty((len(lines), 21))
        for row, (words, targets) in enumerate(lines):
            line1 = Line(words, lexicon)
            statistics = [self._statistics(line1, Line(target, lexicon)) for target in targets]
            rows[row] = max(statistics, key=meteor)
        return rows

    def aggregate(self, rows: Rows) -> float:
        """METEOR of the summed rows."""
        return meteor(rows.sum(axis=0))

    def _tokens(self, text: str) -> list[str]:
        return self.normalizer.tokens(" ".join(ptb_tokens(text)) if self.coco else text)

    def _statistics(self, line1: Line, line2: Line) -> Rows:
        """Statistics of one pair, [21]."""
        matches = align(line1, line2)
        function1 = [word in self.words.function_words for word in line1.words]
        function2 = [word in self.words.function_words for word in line2.words]
        row = np.zeros(21)
        row[:4] = len(line1.words), len(line2.words), sum(function1), sum(function2)
        matched = row[4:20].reshape(4, 4)  # [module, content 1 and 2, function 1 and 2]
        for match in matches:
            for function in function1[match.start1 : match.start1 + match.length1]:
                matched[match.module, 2 * function] += 1
            for function in function2[match.start : match.start + match.length]:
                matched[match.module, 2 * function + 1] += 1
        chunks = count_chunks(matches)
        complete = matched[:, ::2].sum() == len(line1.words) and matched[:, 1::2].sum() == len(
            line2.words
        )
        # a prediction that is its reference in one piece is not penalised
        row[20] = 0 if complete and chunks == 1 else chunks
        return row


def _blocks(
    pairs: Sequence[tuple[str, Sequence[str]]],
) -> Iterator[Sequence[tuple[str, Sequence[str]]]]:
    """Consecutive examples of about `BLOCK` characters: their phrases must fit into memory."""
    start = size = 0
    for stop, (text, targets) in enumerate(pairs, start=1):
        size += len(text) + sum(map(len, targets))
        if size > BLOCK or stop == len(pairs):
            yield pairs[start:stop]
            start, size = stop, 0


def meteor(row: Rows) -> float:
    """METEOR of (summed) statistics, [21]; 0 where nothing matches."""
    length1, length2, function1, function2 = row[:4]
    matched = row[4:20].reshape(4, 4)
    total = matched.sum()
    if not total:
        return 0.0
    weighted = WEIGHTS @ matched
    precision, recall = (
        (DELTA * weighted[side] + (1 - DELTA) * weighted[2 + side])
        / (DELTA * (length - function) + (1 - DELTA) * function)
        for side, length, function in ((0, length1, function1), (1, length2, function2))
    )
    mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
    return float(mean * (1 - GAMMA * (row[20] / (total / 2)) ** BETA))
