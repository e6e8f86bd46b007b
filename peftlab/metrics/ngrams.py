"""Counting n-grams of a whole corpus with arrays instead of dictionaries of tuples.

Texts and n-grams get exact integer numbers (an n-gram is its prefix's number and its last word's),
so that document frequencies and counts over 10,000 examples with 8 references take some hundred
megabytes and a few sorts, where dictionaries would take gigabytes.

Shapes: N examples, T texts (the N predictions first, then all references), K n-grams of one order.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Corpus:
    """Tokenised predictions and references, end to end.

    words: number of each word, [tokens].
    text: number of the text that the word stands in, [tokens], rising.
    example: number of the example that a text belongs to, [T].
    lengths: tokens of each text, [T].
    """

    words: Ints
    text: Ints
    example: Ints
    lengths: Ints
    examples: int


@dataclass(frozen=True)
class Ngrams:
    """All n-grams of one order: the text of each, its number, and the number of its prefix, [K]."""

    text: Ints
    number: Ints
    prefix: Ints
    distinct: int


@dataclass(frozen=True)
class Tally:
    """How often each n-gram occurs in each text, [distinct pairs], sorted by text and number."""

    text: Ints
    number: Ints
    count: Ints


def read_corpus(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: Callable[[str], Iterable[str]],
) -> Corpus:
    """Tokenise and number all texts; no token outlives its text."""
    numbers: dict[str, int] = {}
    words, lengths = array("q"), array("q")
    for text in chain(predictions, chain.from_iterable(references)):
        before = len(words)
        words.extend(numbers.setdefault(word, len(numbers)) for word in tokenize(text))
        lengths.append(len(words) - before)
    examples = np.arange(len(predictions))
    sizes = np.array(lengths, dtype=np.int64)
    return Corpus(
        words=np.array(words, dtype=np.int64),
        text=np.repeat(np.arange(len(sizes)), sizes),
        example=np.concatenate([examples, np.repeat(examples, [len(r) for r in references])]),
        lengths=sizes,
        examples=len(predictions),
    )


def iterate_orders(corpus: Corpus, highest: int) -> Iterator[Ngrams]:
    """The n-grams of order 1, 2, …, `highest`, each with the number of its prefix."""
    start, number = np.arange(len(corpus.words)), corpus.words
    vocabulary = distinct = int(corpus.words.max(initial=-1)) + 1
    yield Ngrams(corpus.text, number, np.zeros_like(number), distinct)
    for order in range(2, highest + 1):
        last = start + order - 1
        inside = last < len(corpus.words)
        inside[inside] = corpus.text[last[inside]] == corpus.text[start[inside]]
        start, prefix = start[inside], number[inside]
        keys = prefix * vocabulary + corpus.words[last[inside]]
        unique, number = np.unique(keys, return_inverse=True)
        distinct = len(unique)
        yield Ngrams(corpus.text[start], number, prefix, distinct)


def tally(ngrams: Ngrams) -> Tally:
    """Occurrences of each n-gram in each text."""
    keys, count = np.unique(ngrams.text * ngrams.distinct + ngrams.number, return_counts=True)
    text, number = np.divmod(keys, max(ngrams.distinct, 1))
    return Tally(text, number, count)


def sum_by(group: Ints, values: Floats, groups: int) -> Floats:
    """Sum of the values of each group, [groups]."""
    return np.bincount(group, values, minlength=groups).astype(np.float64)


def locate(keys: Ints, ordered: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Which keys are in the rising list `ordered`, and where in it those are."""
    place = np.searchsorted(ordered, keys)
    inside = place < len(ordered)
    inside[inside] = ordered[place[inside]] == keys[inside]
    return inside, place[inside]
