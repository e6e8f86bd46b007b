"""What a template needs to know of a tokenizer, and pieces of text as ids.

Tokenizers are fast tokenizers of transformers, handed in as objects: this room imports neither
transformers nor torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from peftlab.errors import InputError

Tokenizer = Any
"""A fast tokenizer of transformers (`PreTrainedTokenizerFast`)."""

_SENTINELS = ("\n", ":", "a")


@dataclass(frozen=True)
class Traits:
    """Facts about one tokenizer, found by probing it once.

    bos: ids that it puts before a text by itself (none for GPT-2).
    special: matches the text of any of its special tokens.
    sentinel: text to put before a piece that continues a row, where the tokenizer would otherwise
        give the piece the form of a beginning (the dummy space of sentencepiece); else empty.
    """

    bos: tuple[int, ...]
    special: re.Pattern[str]
    sentinel: str


_KNOWN: WeakKeyDictionary[Tokenizer, Traits] = WeakKeyDictionary()


def traits(tokenizer: Tokenizer) -> Traits:
    """Return the facts about `tokenizer`. Raises `InputError` for a slow one."""
    if tokenizer not in _KNOWN:
        _KNOWN[tokenizer] = _probe(tokenizer)
    return _KNOWN[tokenizer]


def _probe(tokenizer: Tokenizer) -> Traits:
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"The tokenizer {type(tokenizer).__name__} is a slow one: it cannot say which "
            "characters a token stands for, and truncation needs that. Load its fast version "
            "(AutoTokenizer.from_pretrained(..., use_fast=True), or a folder with tokenizer.json)."
        )
    added = tokenizer.added_tokens_decoder.values()
    texts = {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)
    alternatives = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))
    # "(?!)" matches nothing: a tokenizer may have no special token at all.
    special = re.compile(alternatives or "(?!)")
    return Traits(_bos(tokenizer), special, _sentinel(tokenizer))


def _bos(tokenizer: Tokenizer) -> tuple[int, ...]:
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return tuple(full[:start])
    raise InputError(
        f"The tokenizer {type(tokenizer).__name__} encodes the same text differently with and "
        "without special tokens, so where its beginning-of-sequence token goes is unknown."
    )


def _sentinel(tokenizer: Tokenizer) -> str:
    alone = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    for sentinel in _SENTINELS:
        inside = _after(tokenizer, sentinel, "a", plain=False)
        if inside is not None:
            return "" if inside == alone else sentinel
    return ""


def _after(tokenizer: Tokenizer, before: str, text: str, plain: bool) -> list[int] | None:
    """Return the ids of `text` as it stands after `before`; None where one token holds both."""
    ids, offsets = with_offsets(tokenizer, before + text, plain)
    edge = len(before)
    first = next((i for i, (_, end) in enumerate(offsets) if end > edge), len(ids))
    if first < len(ids) and min(offsets[first][0], edge) < edge:
        return None
    return ids[first:]


def with_offsets(
    tokenizer: Tokenizer, text: str, plain: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return ids and character spans of `text`; `plain` reads special tokens as mere text."""
    row = tokenizer(
        text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        split_special_tokens=plain,
        verbose=False,  # longer than the model's context is our business: rows are cut later
    )
    return list(row["input_ids"]), list(row["offset_mapping"])


def continuation(tokenizer: Tokenizer, text: str, plain: bool) -> list[int]:
    """Return the ids of `text` as the continuation of a row that has begun before it."""
    sentinel = traits(tokenizer).sentinel
    if not sentinel:
        return with_offsets(tokenizer, text, plain)[0]
    for before in (sentinel, *_SENTINELS):
        ids = _after(tokenizer, before, text, plain)
        if ids is not None:
            return ids
    raise InputError(
        f"The tokenizer {type(tokenizer).__name__} does not end a token before {text[:40]!r}, so "
        "this text cannot be trained on by itself. Put a space or a line break before it."
    )


def end_of_sequence(tokenizer: Tokenizer) -> int:
    """Return the id that ends every row. Raises `InputError` where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"The tokenizer {type(tokenizer).__name__} has no end-of-sequence token, and every "
            "target must end with one. Set it: tokenizer.eos_token = '<a token it knows>'."
        )
    return int(tokenizer.eos_token_id)
