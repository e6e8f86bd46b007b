"""What fits into a row, and how rows are cut into packs."""

from __future__ import annotations

import pytest

from peftlab.token_limits import max_row_tokens, token_chunks


@pytest.mark.parametrize(
    "context, max_length, taken, expected",
    [(96, None, 0, 96), (96, 40, 0, 40), (96, 200, 0, 96), (96, None, 20, 76), (96, 40, 20, 20)],
)
def test_a_row_has_what_the_context_and_the_user_leave(
    context: int, max_length: int | None, taken: int, expected: int
) -> None:
    assert max_row_tokens(context, max_length, taken) == expected


def test_chunks_keep_the_order_and_hold_at_most_the_limit() -> None:
    sizes = [3, 4, 1, 9, 2, 2, 2, 2, 8]
    chunks = list(token_chunks(range(9), sizes, 8))
    assert chunks == [[0, 1, 2], [3], [4, 5, 6, 7], [8]], "what is longer is one by itself"
    assert not list(token_chunks([], [], 8))


def test_padded_items_take_as_many_tokens_as_the_longest() -> None:
    assert list(token_chunks("abcd", [2, 3, 4, 4], 8, padded=True)) == [["a", "b"], ["c", "d"]]
    assert list(token_chunks("abc", [4, 1, 1], 8, padded=True)) == [["a", "b"], ["c"]]


def test_every_item_has_its_number_of_tokens() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(token_chunks("abc", [1, 2], 8))
