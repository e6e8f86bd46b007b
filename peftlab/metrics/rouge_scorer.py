"""rouge-score's scorer with its own tokenizer and a stemmer that remembers words."""

from __future__ import annotations

from functools import lru_cache

from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from rouge_score.tokenizers import Tokenizer


def scorer(variant: str, stem: bool) -> RougeScorer:
    """For one variant, with Porter's stemming or without."""
    return RougeScorer([variant], tokenizer=RougeTokenizer(stem))


class CachedStemmer:
    """Porter's stemmer behind a cache: a corpus repeats its words, and stemming is slow."""

    def __init__(self) -> None:
        self.stem = lru_cache(maxsize=100_000)(PorterStemmer().stem)


class RougeTokenizer(Tokenizer):
    """rouge-score's own tokenizer, with the cached stemmer or none."""

    def __init__(self, stem: bool) -> None:
        self._stemmer = CachedStemmer() if stem else None

    def tokenize(self, text: str) -> list[str]:
        """Lower-cased runs of letters and digits."""
        return list(tokenize(text, self._stemmer))
