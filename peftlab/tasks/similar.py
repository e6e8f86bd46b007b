"""Choice of few-shot exemplars by similarity: cosine of tf-idf vectors of the sources.

Weights are those of scikit-learn's `TfidfVectorizer` at its defaults (raw counts, smoothed idf
ln((1 + n) / (1 + df)) + 1, L2 norm), with words of any length; an inverted index keeps a query
over thousands of exemplars in the range of milliseconds.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def _counts(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


class TfIdf:
    """An index over `texts` that ranks them by similarity to a query."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [_counts(text) for text in texts]
        document_counts = Counter(word for count in counts for word in count)
        total = len(texts)
        self._idf = {w: math.log((1 + total) / (1 + n)) + 1 for w, n in document_counts.items()}
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for index, count in enumerate(counts):
            for word, weight in self._normalised(count).items():
                self._postings[word].append((index, weight))

    def _normalised(self, count: Counter[str]) -> dict[str, float]:
        weights = {w: n * self._idf[w] for w, n in count.items() if w in self._idf}
        norm = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {word: weight / norm for word, weight in weights.items()} if norm else {}

    def similarities(self, query: str) -> dict[int, float]:
        """Return the cosine with `query` of every text that shares a word with it, by index."""
        scores: dict[int, float] = defaultdict(float)
        for word, weight in self._normalised(_counts(query)).items():
            for index, other in self._postings[word]:
                scores[index] += weight * other
        return dict(scores)
