"""Words of any script."""

from __future__ import annotations

import pytest

from peftlab.metrics.words import latin_share, unicode_words, unseen_by_google, unspaced_share


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Can't pay 3.5 — U.S.A.!", "can't pay 3.5 u.s.a"),
        ("这篇 cat 2019年", "这 篇 cat 2019 年"),
        ("カタカナとひらがな", "カタカナ と ひ ら が な"),
        ("नमस्ते दुनिया।", "नमस्ते दुनिया"),
        ("Привет, мир!", "привет мир"),
        ("안녕하세요 세계", "안녕하세요 세계"),
        ("cafe\u0301 👩‍👩‍👧 …", "café"),
        ("สวัสดี", "ส วั ส ดี"),
        ("", ""),
    ],
)
def test_unicode_words(text: str, words: str) -> None:
    assert unicode_words(text) == words.split()


def test_shares_of_scripts() -> None:
    assert latin_share(["abc", "где", "?!"]) == 1 / 2
    assert latin_share(["?!", ""]) == 1
    assert unspaced_share(["ab猫の"]) == 1 / 2
    assert unspaced_share(["?"]) == 0
    assert unseen_by_google(["где", "?"]) and not unseen_by_google(["где", "A"])
    assert not unseen_by_google(["?!", ""])
