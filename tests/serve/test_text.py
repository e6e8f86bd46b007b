"""Text piece by piece: the pieces are the text, no character is torn, stop strings hold."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from peftlab.serve.text import TextStream

_TEXTS = (
    "The cat sleeps.", "naïve café — über", "日本語のテキスト", "smile 😀 family 👨‍👩‍👧‍👦",
    "flags 🇨🇭🇫🇷", " \n spaced \n\n out \t ",
    "क्षत्रिय", "العربية", "x" * 30, "", " ", "a\u0301 combining",
)  # fmt: skip


@lru_cache
def byte_level() -> Any:
    """Characters beyond ASCII are several tokens each."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(["the cat sleeps", "out in the rain"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")


@lru_cache
def metaspace() -> Any:
    """As Llama's and Gemma's: a word's space is drawn before it, the first one is dropped."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=340, show_progress=False,
        special_tokens=["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256))],
    )  # fmt: skip
    made.train_from_iterator(["the cat sleeps", "out in the rain", "spaced"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")


def _pieces(tokenizer: Any, ids: list[int], stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    stream = TextStream(tokenizer, stops)
    pieces = []
    for token in ids:
        pieces.append(stream.add(token))
        if stream.stopped:
            return pieces, True
    return [*pieces, stream.finish()], stream.stopped


@pytest.mark.parametrize("make", [byte_level, metaspace])
@pytest.mark.parametrize("text", _TEXTS)
def test_the_pieces_are_the_text(make: Any, text: str) -> None:
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces, _ = _pieces(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert all("\ufffd" not in piece for piece in pieces if "\ufffd" not in text)


@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_random_tokens_too(make: Any) -> None:
    """Most of these are no UTF-8 at all: nothing is lost, nothing comes twice."""
    tokenizer, rng = make(), random.Random(0)
    for _ in range(300):
        ids = [rng.randrange(3, len(tokenizer)) for _ in range(rng.randrange(12))]
        pieces, _ = _pieces(tokenizer, ids)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (("sl",), "the cat"), (("cat", "the"), ""), (("eps", "leep"), "the cat s"),
        (("xyz",), "the cat sleeps"), (("s ", "\n"), "the cat sleeps"),
        (("psx", "ps"), "the cat slee"),
        ((" ",), "the"),
    ],
)  # fmt: skip
def test_stop_strings(stops: tuple[str, ...], expected: str) -> None:
    tokenizer = byte_level()
    for text in ("the cat sleeps", "  the cat sleeps"):
        if stops == (" ",) and text[0] == " ":
            continue
        ids = [i for c in text for i in tokenizer(c, add_special_tokens=False)["input_ids"]]
        pieces, stopped = _pieces(tokenizer, ids, stops)
        assert "".join(pieces) == expected
        assert stopped == (expected != "the cat sleeps")
