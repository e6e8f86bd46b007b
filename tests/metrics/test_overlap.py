"""Small examples whose scores are worked out by hand, and laws against independent scorers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.lib_ter import translation_edit_rate

from peftlab.metrics import (
    MetricError,
    MetricUnavailableError,
    MetricWarning,
    bleu_tokenizers,
    check_metric,
    score,
)
from peftlab.metrics.ter import count_edits

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=40)
TEXT = WORDS.map(" ".join)
CORPUS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=6)


def corpus(name: str, predictions: list[str], references: list[list[str]]) -> float:
    return score(name, predictions, references).corpus[name]


def test_rouge_by_hand() -> None:
    """4 of 5 words and 2 of 4 bigrams shared; longest common subsequence "the cat on mat"."""
    prediction, reference = ["the cat sat on mat"], [["the cat is on mat"]]
    assert corpus("rouge1", prediction, reference) == pytest.approx(4 / 5)
    assert corpus("rouge2", prediction, reference) == pytest.approx(2 / 4)
    assert corpus("rougeL", prediction, reference) == pytest.approx(4 / 5)


def test_rouge_takes_the_best_reference_for_each_variant() -> None:
    assert corpus("rouge1", ["a b"], [["x y", "b a", "a b c d e f"]]) == 1


def test_stemming_joins_inflections() -> None:
    assert corpus("rouge1", ["walking dogs"], [["walked dog"]]) == 0
    assert corpus("rouge1-stem", ["walking dogs"], [["walked dog"]]) == 1


def test_rouge_lsum_unites_subsequences_over_sentences() -> None:
    """Lin (2004), section 3.2: w1 w2 w3 w4 w5 against two sentences, union 4 of 5."""
    prediction = ["w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"]
    recall, precision = 4 / 5, 4 / 10
    wanted = 2 * recall * precision / (recall + precision)
    assert corpus("rougeLsum", prediction, [["w1 w2 w3 w4 w5"]]) == pytest.approx(wanted)


def test_bleu_by_hand() -> None:
    """Matches 5/6, 3/5, 1/4 and none of 3, which exponential smoothing takes for 1/2 of one."""
    bleu = corpus("bleu", ["the cat sat on the mat"], [["the cat is on the mat"]])
    wanted = (5 / 6 * 3 / 5 * 1 / 4 * (1 / 2) / 3) ** 0.25
    assert bleu == pytest.approx(100 * wanted)


def test_an_empty_line_as_reference_removes_the_brevity_penalty() -> None:
    predictions = ["a b c d", "a b c d"]
    references = [["a b c d e f g h i j"], ["a b c d", "x y"]]
    official = corpus("bleu-webnlg", predictions, references)
    assert official == pytest.approx(100 * math.exp(0))
    assert corpus("bleu", predictions, references) == pytest.approx(100 * math.exp(1 - 14 / 8))


def test_multi_bleu_does_not_smooth() -> None:
    assert corpus("bleu-dart", ["a b c"], [["a b c"]]) == 0
    assert corpus("bleu-dart", ["a b c d"], [["a b c d"]]) == pytest.approx(100)


def test_e2e_bleu_ignores_case() -> None:
    assert corpus("bleu-e2e", ["The Old Inn is here"], [["the old inn is here"]]) == pytest.approx(
        100
    )
    assert corpus("bleu", ["The Old Inn is here"], [["the old inn is here"]]) < 50


def test_mteval_lower_cases_a_to_z_alone() -> None:
    pairs = (["The É is here now"], [["the é is here now"]])
    wanted = (4 / 5 * 2 / 4 * 1 / 3 * (1 / 2) / 2) ** 0.25
    assert corpus("bleu-e2e", *pairs) == pytest.approx(100 * wanted)
    assert corpus("bleu:lowercase=true", *pairs) == pytest.approx(100)
    assert corpus("nist", ["É a", "b"], [["é a"], ["b"]]) < corpus(
        "nist", ["é A", "B"], [["é a"], ["b"]]
    )


def test_mteval_takes_an_order_without_ngrams_for_matched() -> None:
    """Two of three words, the one pair of words, and no three or four words in a row at all."""
    predictions, references = ["a b", "x"], [["a b"], ["y"]]
    assert corpus("bleu-e2e", predictions, references) == pytest.approx(100 * (2 / 3) ** 0.25)
    assert f"{corpus('bleu-e2e', predictions, references):.2f}" == "90.36"
    assert corpus("bleu", predictions, references) == 0
    assert corpus("bleu-e2e", ["", ""], references) == 0
    # what was predicted and never matched is smoothed as before
    assert corpus("bleu-e2e", ["a b c x"], [["a b c d"]]) == pytest.approx(
        100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    )


@pytest.mark.parametrize(
    "text", ["这篇文章讲的是猫的故事", "नमस्ते दुनिया", "مرحبا بالعالم", "Привет, мир", "สวัสดี"]
)
def test_rouge_of_unicode_words_sees_every_script(text: str) -> None:
    with pytest.warns(MetricWarning, match="rouge1 is 0 whatever is predicted"):
        assert corpus("rouge1", [text], [[text]]) == 0
    for variant in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        assert corpus(f"{variant}:tokenizer=unicode", [text], [[text]]) == 1


def test_rouge_of_unicode_words_by_hand() -> None:
    """Characters where a script has no spaces: 3 of 4 shared."""
    assert corpus("rouge1:tokenizer=unicode", ["我爱小猫"], [["我爱大猫"]]) == pytest.approx(3 / 4)
    assert corpus("rouge1:tokenizer=unicode", ["Ёж спит"], [["ёж, ест"]]) == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bleu:tokenize=13", "no tokenizer '13'.* Did you mean \"13a\""),
        ("bleu:tokenize=ja-mecab", r"MeCab and ipadic.*pip install 'sacrebleu\[ja\]'"),
        ("bleu:tokenize=ko-mecab", r"mecab_ko.*pip install 'sacrebleu\[ko\]'"),
        ("bleu:tokenize=flores200", r"pip install 'sentencepiece'|download http"),
        ("rouge1:tokenizer=unicod", 'Did you mean "unicode"'),
        ("rouge2-stem:tokenizer=unicode", "stems English words"),
        ("rouge1-dialogsum:tokenizer=unicode", "does not take the options"),
    ],
)
def test_tokenizers_that_cannot_be_had(name: str, message: str) -> None:
    with pytest.raises(MetricError, match=message) as refused:
        check_metric(name)
    assert "\n" not in str(refused.value)


def test_a_model_of_a_tokenizer_is_never_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bleu_tokenizers, "find_spec", lambda _: object())
    monkeypatch.setattr(bleu_tokenizers, "SACREBLEU_DIR", str(tmp_path))
    for name in ("flores101", "flores200", "spBLEU-1K"):
        with pytest.raises(MetricUnavailableError, match=f"{name}.*download https.*{tmp_path}"):
            check_metric(f"bleu:tokenize={name}")


def test_ter_counts_a_shift_once() -> None:
    assert corpus("ter", ["c d a b"], [["a b c d"]]) == pytest.approx(100 / 4)
    assert corpus("ter", ["a b x"], [["a b c d", "a b"]]) == pytest.approx(100 * 1 / 3)


@pytest.mark.parametrize(
    ("prediction", "references", "wanted"),
    [("", [""], 0.0), ("a b", [""], 100.0), ("", ["a b"], 100.0)],
)
def test_ter_of_empty_texts(prediction: str, references: list[str], wanted: float) -> None:
    assert corpus("ter", [prediction], [references]) == wanted


@given(WORDS, WORDS)
@settings(max_examples=150, deadline=None)
def test_edits_are_those_of_sacrebleu(hypothesis: list[str], reference: list[str]) -> None:
    assert count_edits(hypothesis, reference) == translation_edit_rate(hypothesis, reference)[0]


def test_edits_are_those_of_sacrebleu_where_the_beam_binds() -> None:
    hypothesis = ["x"] * 40 + [str(i) for i in range(60)]
    reference = [str(i) for i in range(60)] + ["y"] * 45
    assert count_edits(hypothesis, reference) == translation_edit_rate(hypothesis, reference)[0]


@given(CORPUS)
@settings(max_examples=60, deadline=None)
def test_corpus_numbers_are_those_of_sacrebleu(pairs: list[tuple[str, list[str]]]) -> None:
    predictions = [text for text, _ in pairs]
    references = [targets for _, targets in pairs]
    widest = max(map(len, references))
    columns = [
        [targets[i] if i < len(targets) else None for targets in references] for i in range(widest)
    ]
    for name, scorer in (
        ("bleu", BLEU(force=True)),
        ("chrf", CHRF()),
        ("chrf++", CHRF(word_order=2)),
        ("ter", TER()),
    ):
        wanted = scorer.corpus_score(predictions, columns).score
        assert corpus(name, predictions, references) == pytest.approx(wanted), name


def test_labels() -> None:
    predictions, references = ["yes", "no ", "no", "maybe"], [["yes"], ["no"], ["yes"], ["yes"]]
    assert corpus("accuracy", predictions, references) == pytest.approx(2 / 4)
    wanted = (2 * 1 / (3 + 1) + 2 * 1 / (1 + 2) + 0) / 3  # yes, no, maybe
    assert corpus("macro_f1", predictions, references) == pytest.approx(wanted)


def test_exact_match_takes_any_reference() -> None:
    predictions, references = [" Paris\n", "the  Hague"], [["London", "Paris"], ["The Hague"]]
    assert corpus("exact_match", predictions, references) == pytest.approx(1 / 2)
    assert corpus("exact_match-folded", predictions, references) == 1
