"""NIST, CIDEr and COCO ROUGE-L against direct implementations on dictionaries and lists."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftlab.metrics import MetricWarning, build_metric, score
from peftlab.metrics.ngrams import iterate_orders, read_corpus

TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=9).map(" ".join)
FULL = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=9).map(" ".join)
CORPUS = st.lists(st.tuples(TEXT, st.lists(FULL, min_size=1, max_size=3)), min_size=2, max_size=6)


def split(pairs: list[tuple[str, list[str]]]) -> tuple[list[str], list[list[str]]]:
    return [text for text, _ in pairs], [targets for _, targets in pairs]


def grams(words: list[str], order: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]


def slow_nist(predictions: list[str], references: list[list[str]], by_example: bool) -> float:
    """Doddington (2002), formulas 2 and 3, word for word."""
    tokens = [[target.split() for target in targets] for targets in references]
    counts: Counter[tuple[str, ...]] = Counter()
    for target in (t for targets in tokens for t in targets):
        counts[()] += len(target)
        for order in range(1, 6):
            counts.update(grams(target, order))
    total = 0.0
    for order in range(1, 6):
        gain, size = 0.0, 0
        for text, targets in zip(predictions, tokens, strict=True):
            ours = Counter(grams(text.split(), order))
            best: Counter[tuple[str, ...]] = Counter()
            for target in targets:
                best |= Counter(grams(target, order))
            size += sum(ours.values())
            for gram, n in (ours & best).items():
                gain += n * math.log2(counts[gram[:-1]] / counts[gram])
        total += gain / size if size else 0.0
    predicted = sum(len(text.split()) for text in predictions)
    lengths = [[len(t) for t in targets] for targets in tokens]
    if by_example:
        wanted = sum(sum(row) / len(row) for row in lengths)
    else:
        wanted = counts[()] / (sum(map(len, lengths)) / len(lengths))
    if not predicted:
        return 0.0
    ratio = min(1.0, predicted / wanted)
    return total * math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(ratio) ** 2)


def slow_cider(predictions: list[str], references: list[list[str]]) -> list[float]:
    """Vedantam et al. (2015), formulas 3 to 5 with clipping and the length penalty (CIDEr-D)."""
    frequency: Counter[tuple[str, ...]] = Counter()
    for targets in references:
        frequency.update({g for t in targets for n in range(1, 5) for g in grams(t.split(), n)})

    def vector(text: str, order: int) -> dict[tuple[str, ...], float]:
        tf = Counter(grams(text.split(), order))
        return {g: n * math.log(len(predictions) / max(1, frequency[g])) for g, n in tf.items()}

    scores = []
    for text, targets in zip(predictions, references, strict=True):
        total = 0.0
        for target in targets:
            gap = max(len(text.split()) - 1, 0) - max(len(target.split()) - 1, 0)
            for order in range(1, 5):
                a, b = vector(text, order), vector(target, order)
                norm = math.hypot(*a.values()) * math.hypot(*b.values())
                dot = sum(min(a[g], b[g]) * b[g] for g in a.keys() & b.keys())
                total += dot / norm * math.exp(-(gap**2) / 72) / 4 if norm else 0.0
        scores.append(10 * total / len(targets))
    return scores


@given(CORPUS)
@settings(max_examples=60, deadline=None)
def test_nist_is_its_definition(pairs: list[tuple[str, list[str]]]) -> None:
    predictions, references = split(pairs)
    for name, by_example in (("nist", False), ("nist-e2e-p", True)):
        ours = score(name, predictions, references).corpus[name]
        assert ours == pytest.approx(slow_nist(predictions, references, by_example))


@given(CORPUS)
@settings(max_examples=60, deadline=None)
def test_cider_is_its_definition(pairs: list[tuple[str, list[str]]]) -> None:
    predictions, references = split(pairs)
    ours = score("cider", predictions, references).per_example["cider"]
    assert ours == pytest.approx(slow_cider(predictions, references), abs=1e-9)


def test_nist_by_hand() -> None:
    """Each of four words has log2(4/1) bits, each longer n-gram none; penalty 1."""
    assert score("nist", ["a b c d"], [["a b c d"]]).corpus["nist"] == pytest.approx(2.0)
    half = score("nist", ["a b"], [["a b c"]]).corpus["nist"]
    assert half == pytest.approx(math.log2(3) / 2)  # 2/3 of the length costs half


def test_coco_rouge_by_hand() -> None:
    """Precision 3/4 from the first reference, recall 2/2 from the second."""
    ours = score("rougeL-coco", ["a b x c"], [["a b c d e f", "b c"]]).corpus["rougeL-coco"]
    assert ours == pytest.approx((1 + 1.44) * 0.75 * 1 / (1 + 1.44 * 0.75))


def test_coco_rouge_of_two_empty_texts_is_one_as_officially() -> None:
    assert score("rougeL-coco", [""], [["."]]).corpus["rougeL-coco"] == 1


def test_cider_of_a_single_example_is_zero_as_officially() -> None:
    with pytest.warns(MetricWarning, match="cider of one example is always 0"):
        assert score("cider", ["a b c"], [["a b c"]]).corpus["cider"] == 0


def test_nist_of_nothing_predicted_is_zero() -> None:
    assert score("nist", ["", ""], [["a b"], ["c"]]).corpus["nist"] == 0


def test_ngrams_stay_inside_their_text() -> None:
    corpus = read_corpus(["a b", "c"], [["a b c", "c"], [""]], str.split)
    seen = [(g.text.tolist(), g.number.tolist()) for g in iterate_orders(corpus, 4)]
    assert seen[0][0] == [0, 0, 1, 2, 2, 2, 3]
    assert seen[1] == ([0, 2, 2], [0, 0, 1])
    assert seen[2] == ([2], [0])
    assert seen[3] == ([], [])


def test_resampled_rows_of_nist_keep_their_weights() -> None:
    predictions, references = ["a b c", "d e", "a a"], [["a b d"], ["d e f"], ["a b"]]
    metric = build_metric("nist")
    rows = metric.statistics(predictions, references)
    twice = metric.aggregate(np.concatenate([rows, rows]))
    assert twice == pytest.approx(metric.aggregate(rows))
