"""Rows that stay in their table, and pairs, against plain lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab.tasks import Example
from peftlab.tasks.files import Table
from peftlab.tasks.rows import Pairs, StoredRows, take


def read(_: int, row: dict[str, list[str]]) -> Example | None:
    return Example(row["t"][0], tuple(row["t"])) if row["t"] else None


tables = st.lists(st.lists(st.text(max_size=3), max_size=3), max_size=9)


@given(tables, st.data())
def test_stored_rows_and_their_pairs_are_those_of_a_list(
    texts: list[list[str]], data: st.DataObject
) -> None:
    stored = StoredRows(Table("t", [{"t": t} for t in texts]), read)  # type: ignore[arg-type]
    plain = [Example(t[0], tuple(t)) for t in texts if t]
    assert list(stored) == plain == [stored[i] for i in range(len(stored))]
    assert stored.left_out == len(texts) - len(plain)
    pairs = [(row, target) for row in plain for target in row.targets]
    for rows in (stored, plain):
        assert list(Pairs(rows)) == pairs == Pairs(rows)[:]
        assert len(Pairs(rows)) == len(pairs)
    if plain:
        places = sorted(data.draw(st.sets(st.integers(0, len(plain) - 1))))
        chosen = [plain[i] for i in places]
        assert list(take(stored, places)) == chosen == take(plain, places)
        assert list(Pairs(take(stored, places))) == list(Pairs(chosen))
        assert Pairs(plain)[-1] == pairs[-1]


def test_a_pair_beyond_the_end_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        Pairs([Example("a", ("b",))])[1]
