"""How many tokens fit: into a row, and into a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def max_row_tokens(context: int, max_length: int | None = None, taken: int = 0) -> int:
    """The most tokens that a row may have, its target or reply included.

    Args:
        context: positions of the model. max_length: a limit of the user's, None without one.
        taken: positions that are no tokens of the row: of a prefix, or of PEFT's virtual tokens.
    """
    return min(max_length or context, context) - taken


def token_chunks(
    items: Iterable[Item], tokens: Sequence[int], limit: int, *, padded: bool = False
) -> Iterator[list[Item]]:
    """Runs of items, in their order, of at most `limit` tokens; a longer item is one by itself.

    Args:
        tokens: how many each item has.
        padded: items of a run take as many tokens each as its longest; packed, their own.
    """
    chunk, total, longest = list[Item](), 0, 0
    for item, own in zip(items, tokens, strict=True):
        total, longest = total + own, max(longest, own)
        if chunk and ((len(chunk) + 1) * longest if padded else total) > limit:
            yield chunk
            chunk, total, longest = [], own, own
        chunk.append(item)
    if chunk:
        yield chunk
