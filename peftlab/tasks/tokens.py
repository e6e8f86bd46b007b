"""What a template needs to know of a tokenizer, and pieces of text as ids.

Tokenizers are fast tokenizers of transformers, handed in as objects: this package imports neither
transformers nor torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from peftlab.errors import InputError

Tokenizer = Any
"""A fast tokenizer of transformers (`PreTrainedTokenizerFast`)."""

Pieces = tuple[list[int], list[tuple[int, int]]]
"""Ids, and for each the characters that it stands for, as (start, end)."""

_SENTINELS = (":", "a", "\n")


@dataclass(frozen=True)
class Traits:
    """Facts about one tokenizer, found by probing it once.

    bos: ids that it puts before a text by itself (none for GPT-2).
    special: matches the text of any of its special tokens. control: their ids, but for the unknown
        token's, which any text may need.
    sentinel: text to put before a piece that continues a row, where the tokenizer would otherwise
        give the piece the form of a beginning (the dummy space of sentencepiece); else empty.
    """

    bos: tuple[int, ...]
    special: re.Pattern[str]
    control: frozenset[int]
    sentinel: str


_KNOWN: WeakKeyDictionary[Tokenizer, Traits] = WeakKeyDictionary()
_EMBEDDED: WeakKeyDictionary[Tokenizer, int] = WeakKeyDictionary()
_ENDS: WeakKeyDictionary[Tokenizer, tuple[int, ...]] = WeakKeyDictionary()


def embed_below(tokenizer: Tokenizer, count: int) -> None:
    """Note how many ids the tokenizer's model embeds: a row with a higher one is then refused."""
    _EMBEDDED[tokenizer] = count


def check_embedded(tokenizer: Tokenizer, ids: Iterable[int], where: str) -> None:
    """Refuse ids that the tokenizer's model does not embed. Raises `InputError`."""
    count = _EMBEDDED.get(tokenizer)
    if count is not None and (beyond := [i for i in ids if i >= count]):
        highest = max(tokenizer.get_vocab().values())
        raise InputError(
            f"{where} holds the token {tokenizer.convert_ids_to_tokens(beyond[0])!r} with the id "
            f"{beyond[0]:,}, and the base embeds {count:,} tokens (the tokenizer has ids up to "
            f"{highest:,}). Take the text out, or resize the base: "
            "model.resize_token_embeddings(len(tokenizer))."
        )


def is_embedded(tokenizer: Tokenizer, token: int) -> bool:
    """Say whether the tokenizer's model embeds this id, as far as that is known."""
    return token < _EMBEDDED.get(tokenizer, token + 1)


def let_end(tokenizer: Tokenizer, ids: Iterable[int]) -> None:
    """Note at which ids the generation defaults of the tokenizer's model end a reply."""
    _ENDS[tokenizer] = tuple(ids)


def reply_ends(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return the texts of the tokens that end a chat's reply besides its template's own.

    They are the tokenizer's end-of-sequence token and what was noted by `let_end`.
    """
    ids = (tokenizer.eos_token_id, *_ENDS.get(tokenizer, ()))
    texts = (None if i is None else tokenizer.convert_ids_to_tokens(i) for i in ids)
    return tuple(dict.fromkeys(text for text in texts if text is not None))


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
    ids = frozenset(tokenizer.convert_tokens_to_ids(sorted(texts))) - {tokenizer.unk_token_id}
    return Traits(_bos(tokenizer), special, ids, _sentinel(tokenizer))


def _bos(tokenizer: Tokenizer) -> tuple[int, ...]:
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    check_embedded(tokenizer, full, "The beginning of every row")
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
            return "" if inside[0] == alone else sentinel
    return ""


def _after(tokenizer: Tokenizer, before: str, text: str, plain: bool) -> Pieces | None:
    """Return the ids of `text` as it stands after `before`; None where a token holds some of both.

    Where the ids begin with those of `before` alone, the others stand for `text`. (Offsets would
    not tell: byte-level tokenizers trim the white space from them.)
    """
    alone = _pieces(tokenizer, before, plain)[0]
    ids, offsets = _pieces(tokenizer, before + text, plain)
    count, edge = len(alone), len(before)
    if ids[:count] != alone:
        return None
    shifted = [(max(left - edge, 0), max(right - edge, 0)) for left, right in offsets[count:]]
    return ids[count:], shifted


def _pieces(tokenizer: Tokenizer, text: str, plain: bool) -> Pieces:
    row = tokenizer(
        text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        split_special_tokens=plain,
        verbose=False,  # longer than the model's context is our business: rows are cut later
    )
    ids = list(row["input_ids"])
    check_embedded(tokenizer, ids, f"The text {text[:60]!r}")
    if plain and not traits(tokenizer).control.isdisjoint(ids):
        raise InputError(
            f"The text {text[:60]!r} holds a special token, which the tokenizer "
            f"{type(tokenizer).__name__} cannot write as mere text. Take it out of the data."
        )
    return ids, list(row["offset_mapping"])


def pieces(tokenizer: Tokenizer, text: str, plain: bool, begun: bool) -> Pieces:
    """Return the ids of `text` and the characters that each stands for, as (start, end).

    plain: read special tokens as mere text. begun: the row has begun before this text.
    """
    sentinel = traits(tokenizer).sentinel if begun else ""
    if not sentinel:
        return _pieces(tokenizer, text, plain)
    for before in (sentinel, *_SENTINELS):
        after = _after(tokenizer, before, text, plain)
        if after is not None:
            return after
    raise InputError(
        f"The tokenizer {type(tokenizer).__name__} does not begin a token at {text[:40]!r}, so "
        "this text cannot stand by itself in a row. Put a space or a line break before it."
    )


def pieces_between(
    tokenizer: Tokenizer, text: str, marks: Sequence[tuple[int, int]], begun: bool
) -> Pieces:
    """Return the ids of `text` in which the spans `marks`, and nothing else, are special tokens.

    Special tokens split a text before anything else happens to it, so what lies between them is
    tokenised by itself, and as mere text.
    """
    ids, offsets, at = list[int](), list[tuple[int, int]](), 0
    for start, end in [*marks, (len(text), len(text))]:
        if at < start:
            own, places = pieces(tokenizer, text[at:start], True, begun)
            ids += own
            offsets += [(at + left, at + right) for left, right in places]
        if start < end:
            ids.append(_mark(tokenizer, text[start:end]))
            offsets.append((start, end))
            begun = not _begins_anew(tokenizer, text[start:end])
        at = end
    return ids, offsets


def _mark(tokenizer: Tokenizer, text: str) -> int:
    """Return the id of a special token that takes nothing of what stands beside it."""
    token = int(tokenizer.convert_tokens_to_ids(text))
    added = tokenizer.added_tokens_decoder.get(token)
    if added is None or added.lstrip or added.rstrip or added.single_word:
        raise InputError(
            f"The data hold the text of a special token beside the template's {text!r}, into which "
            f"the tokenizer {type(tokenizer).__name__} takes what stands next to it, so they could "
            "not be told apart. Take it out of the data, or leave the chat template out: "
            "-o chat=false."
        )
    return token


def _begins_anew(tokenizer: Tokenizer, mark: str) -> bool:
    """Say whether text after this special token has the form of a beginning."""
    alone = _pieces(tokenizer, "a", plain=False)[0]
    return _pieces(tokenizer, mark + "a", plain=False)[0][1:] == alone


def end_of_sequence(tokenizer: Tokenizer) -> int:
    """Return the id that ends every row. Raises `InputError` where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"The tokenizer {type(tokenizer).__name__} has no end-of-sequence token, and every "
            "target must end with one. Set it: tokenizer.eos_token = '<a token it knows>'."
        )
    end = int(tokenizer.eos_token_id)
    check_embedded(tokenizer, [end], "The end of every target")
    return end
