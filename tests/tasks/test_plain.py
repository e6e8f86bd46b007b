"""Plain text: whole, cut into windows, begun as the tokenizer begins a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.tasks.plain import general_text, text_rows


def test_windows_hold_every_token_once(bpe: Any) -> None:
    texts = ["the cat sat on the mat", "Blue Spice is a coffee shop"]
    rows = text_rows(bpe, texts, 4, 10_000)
    assert all(2 <= len(row.ids) <= 4 and row.target_start == 1 for row in rows)
    for text in texts:
        ids = bpe(text)["input_ids"]
        whole = len(ids) - (len(ids) % 4 == 1)  # a last token by itself cannot be predicted
        own = [row.ids for row in text_rows(bpe, [text], 4, 10_000)]
        assert [i for ids in own for i in ids] == ids[:whole]
        assert all(ids in [row.ids for row in rows] for ids in own)


def test_no_more_than_the_most(bpe: Any) -> None:
    rows = text_rows(bpe, ["the cat sat on the mat, 3.5 times! Output: a cat."] * 9, 4, 10)
    assert [len(row.ids) for row in rows] == [4, 4, 2]


def test_a_text_starts_as_the_tokenizer_starts_it(any_tokenizer: Any) -> None:
    (row,) = text_rows(any_tokenizer, ["the cat"], 100, 100)
    ids = any_tokenizer("the cat")["input_ids"]
    assert list(row.ids) == ids[: len(row.ids)]


def test_the_words_of_special_tokens_are_words(bpe: Any) -> None:
    (row,) = text_rows(bpe, ["a <|endoftext|> b"], 100, 100)
    assert bpe.eos_token_id not in row.ids
    assert bpe.decode(row.ids) == "a <|endoftext|> b"


def test_text_without_a_pair_of_tokens_is_refused(bpe: Any) -> None:
    with pytest.raises(InputError, match="no two tokens"):
        text_rows(bpe, ["a", ""], 4, 100)
    with pytest.raises(InputError, match="windows of 1 tokens"):
        text_rows(bpe, ["a cat"], 1, 100)


def test_files_and_the_demo_world(tmp_path: Path) -> None:
    assert len(general_text()) == 100 == len(set(general_text()))
    assert general_text(seed=1) != general_text()
    path = tmp_path / "notes.txt"
    path.write_text("Grüße\n\nfrom here\n", encoding="utf-8")
    assert general_text(path) == ("Grüße\n\nfrom here\n",)
    path.write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(InputError, match=r"line 1 is not UTF-8"):
        general_text(path)
    path.write_text(" \n")
    with pytest.raises(InputError, match="is empty"):
        general_text(path)
    with pytest.raises(InputError, match="no file"):
        general_text(tmp_path / "missing.txt")
