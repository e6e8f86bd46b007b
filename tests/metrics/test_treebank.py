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

# marks, emoji, zero-width signs, entities: read off the same program
OTHER_SCRIPTS = [
    ("नमस्ते दुनिया। हिन्दी में १२३ ५%",
     "नमस्ते दुनिया । हिन्दी में १२३ ५ %"),
    ("ক্ষমতা বাংলা",
     "ক্ষমতা বাংলা"),
    ("தமிழ் மொழி",
     "தமிழ் மொழி"),
    ("മലയാളം ಕನ್ನಡ සිංහල မြန်မာ ខ្មែរ",
     "മലയാള ಕನ ನಡ ස හල မ န မ ខ ម រ"),
    ("cafe\u0301 e\u0301te\u0301 l'e\u0301cole u\u0308ber-cool",
     "cafe\u0301 e\u0301te\u0301 l' e\u0301cole u\u0308ber cool"),
    ("مَرْحَبًا بالعالم، ٣٫٥",
     "مَرْحَبًا بالعالم ، ٣٫٥"),
    ("שָׁלוֹם צה״ל",
     "שָׁלוֹם צה ״ ל"),
    ("สวัสดีครับ ก็",
     "สวัสดีครับ ก็"),
    ("这篇文章，讲的是猫。 東京・大阪",
     "这篇文章 ， 讲的是猫 。 東京 ・ 大阪"),
    ("кто-то С.-Петербург «да» №5",
     "кто-то с петербург да № 5"),
    ("Καλημέρα κόσμε· ΣΑΣ",
     "καλημέρα κόσμε · σας"),
    ("hi 😀 there ok😀fine 👨\u200d👩\u200d👧 ❤\ufe0f 1\ufe0f⃣ ☎ → ™ ★★",
     "hi there ok fine ❤ 1 ☎ → ™ ★ ★"),
    ("“😀”“😀”",
     "''``"),
    ("a\u200bb a\u200db می\u200cخواهم a\ufeffb a\u2060b soft\xadhyphen \xad",
     "a b a b می خواهم a b a b softhyphen"),
    ("U.S. 😀 The Mr.\u200bX",
     "u.s. the mr. x"),
    ("a\x01b \x7f",
     "a b"),
    ("AT&amp;T R&amp;D at&amp;t &lt;b&gt; &quot;hi&quot; &AMP;",
     "at&t r&d at & t < b > hi &"),
    ("don&apos;t it&apos;s o&apos;clock &apos;",
     "do n't it 's o&apos;clock"),
    ("x&nbsp;y a&mdash;b &hellip; &euro;5",
     "x y a b & hellip & euro 5"),
    ("caf&eacute;s &Eacute;tat na&iuml;ve",
     "caf&eacute;s &eacute;tat na&iuml;ve"),
    ("it&#39;s &#8217; &#x27;",
     "it &#39; s &#8217; & #x 27"),
    ("l’été O’Brien o’clock don’t it’s ’90s y’all",
     "l’été o’brien o’clock do n't it 's ’90s y’ all"),
    ("x² y²³ H₂O 10⁻³ 1⁄2 ⅓ ½ ① ⅷ",
     "x ² y ²³ h ₂ o 10 ⁻³ 1⁄2 1/3 1/2 ①"),
    ("a\u2010b a\u2011b 2010–2011 «x» ‹y› „z“",
     "a\u2010b a\u2011b 2010 2011 x y „ z"),
    ("₹5 ₽5 €5 ¢5 £5 ¥5",
     "5 5 $ 5 cents 5 # 5 ¥ 5"),
    ("ＡＢＣ １．５ ＃x",
     "ａｂｃ １ ． ５ ＃ x"),
    ("café/bar a/b",
     "café / bar a/b"),
    ("İstanbul ß ǅ",
     "i\u0307stanbul ß ǆ"),
    ("joe@x.co.uk. B. Mr. X e.g.5% κ.λπ.; г.кто-то",
     "joe@x.co.uk b mr. x e.g. 5 % κ.λπ. г.кто то"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "tokens"), [*STANFORD, *OTHER_SCRIPTS])
def test_tokens_by_example(text: str, tokens: str) -> None:
    assert " ".join(ptb_tokens(text)) == tokens


@pytest.mark.parametrize("name", ["e2e_dev_ukp_model_d_seed1", "e2e_example10", "e2e_test_tgen"])
def test_tokens_of_published_outputs(case: Callable[[str], Case], name: str) -> None:
    system = case(name)
    for row, text, targets in zip(
        system.lines("ptb_tokens.jsonl"), system.predictions, system.references, strict=True
    ):
        assert " ".join(ptb_tokens(text)) == row["prediction"]
        assert [" ".join(ptb_tokens(target)) for target in targets] == row["references"]


@given(st.text(max_size=60))
def test_any_text_gives_lower_case_tokens_without_punctuation(text: str) -> None:
    for token in ptb_tokens(text):
        assert token
        assert token not in PUNCTUATION


@given(st.text(alphabet="\u200b\ufe0f😀\U00020000\u09bf\u0300e1'-.", max_size=12))
def test_signs_that_the_program_deletes_leave_nothing(text: str) -> None:
    assert not set("".join(ptb_tokens(text))) & set("\u200b\ufe0f😀\U00020000")


@given(st.lists(st.sampled_from(["a", "plain", "word", "here"]), max_size=20))
def test_plain_words_stay_as_they_are(words: list[str]) -> None:
    assert ptb_tokens(" ".join(words)) == words
