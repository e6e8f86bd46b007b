"""Treebank tokens beside those of Stanford's PTBTokenizer (CoreNLP 3.4.1, -lowerCase)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab.metrics.ptb import PUNCTUATION, ptb_tokens

from .conftest import Case

# right-hand sides are that program's output with COCO's punctuation dropped
STANFORD = [
    ("He said \"hello\" and 'goodbye'.", "he said hello and goodbye"),
    ("Don't can't cannot gonna gotta lemme", "do n't ca n't can not gon na got ta lem me"),
    ("It's John's, they've, we'll, I'd, you're", "it 's john 's they 've we 'll i 'd you 're"),
    ("'Tis the dogs' y'all o'clock O'Brien ma'am", "'t is the dogs y' all o'clock o'brien ma'am"),
    ("Mr. Smith of U.S. Corp. at 5 p.m. in Jan. 2003, e.g. near St. Paul's.",
     "mr. smith of u.s. corp. at 5 p.m. in jan. 2003 e.g. near st. paul 's"),
    ("£20-25 or $30.50, €40, 50% of 1,000,000 - or 3.5m",
     "# 20-25 or $ 30.50 $ 40 50 % of 1,000,000 or 3.5 m"),
    ("It's 5:30pm on 01/02/2003.", "it 's 5:30 pm on 01/02/2003"),
    ("(a) [x] {y}", "-lrb- a -rrb- -lsb- x -rsb- -lcb- y -rcb-"),
    ("family-friendly and/or a*b AT&T at&t", "family-friendly and/or a * b at&t at & t"),
    ("What?! No!! Oh... well.. yes -- no", "what ?! no !! oh well yes no"),
    ("#Person1# and #Person2#: Hi!", "#person 1 # and #person 2 # hi"),
    ("the city center., close by", "the city center. close by"),
    ("not really.But I know", "not really.but i know"),
    ("Visit http://www.example.com/a?b=c or mail joe@x.co.uk",
     "visit http://www.example.com/a?b=c or mail joe@x.co.uk"),
    ("“quoted” ‘single’ it’s don’t – … ½", "quoted single it 's do n't 1/2"),
    ("Cifar-10/100, a/b-c, WMT'14 and the '90s", "cifar-10 / 100 a/b-c wmt '14 and the '90s"),
    ("No. 5, no. Fig. 3", "no. 5 no fig. 3"),
    ("Café Rouge, naïve", "café rouge naïve"),
    ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "tokens"), STANFORD)
def test_tokens_by_example(text: str, tokens: str) -> None:
    assert " ".join(ptb_tokens(text)) == tokens


@pytest.mark.parametrize("name", ["e2e_dev_ukp_model_d_seed1", "e2e_example10", "e2e_test_tgen"])
def test_tokens_of_published_outputs(case: Callable[[str], Case], name: str) -> None:
    found = case(name)
    for row, text, targets in zip(
        found.lines("ptb_tokens.jsonl"), found.predictions, found.references, strict=True
    ):
        assert " ".join(ptb_tokens(text)) == row["prediction"]
        assert [" ".join(ptb_tokens(target)) for target in targets] == row["references"]


@given(st.text(max_size=60))
def test_any_text_gives_lower_case_tokens_without_punctuation(text: str) -> None:
    for token in ptb_tokens(text):
        assert token
        assert token not in PUNCTUATION


@given(st.lists(st.sampled_from(["a", "plain", "word", "here"]), max_size=20))
def test_plain_words_stay_as_they_are(words: list[str]) -> None:
    assert ptb_tokens(" ".join(words)) == words
