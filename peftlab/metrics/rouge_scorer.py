"""rouge-score's scorer with its own tokenizer and a stemmer that remembers words."""

from __future__ import annotations

from functools import lru_cache

from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from rouge_score.tokenizers import Tokenizer

from peftlab.metrics.words import unicode_words


def scorer(variant: str, stem: bool, unicode: bool = False) -> RougeScorer:
    """For one variant: Google's tokens, with Porter's stemming or without, or Unicode's words."""
    return RougeScorer([variant], tokenizer=UnicodeTokenizer() if unicode else RougeTokenizer(stem))


class UnicodeTokenizer(Tokenizer):
    """The words of any script."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-cased words by Unicode's rules."""
        return unicode_words(text)


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
