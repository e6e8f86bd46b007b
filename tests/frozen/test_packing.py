"""What a batch holds: rows of several spans, rows with a past, and what cannot be one batch."""

from __future__ import annotations

import pytest
import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.batch import Past, Span
from peftlab.frozen.cache import KeyValueCache
from peftlab.frozen.forward import ForwardContext, ForwardOptions, current_forward
from peftlab.frozen.packing import Row, pack
from tests.frozen.hand_made import Maker
from tests.models import frozen

LENGTH = 40
SPANS = ((5, 8), (20, 23), (38, LENGTH))


class _Spanned(Row):
    """A row whose logits are wanted at several places."""

    @property
    def spans(self) -> tuple[Span, ...]:
        return SPANS


def _ids(seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 120, (LENGTH,), generator=generator).tolist()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text"])
@pytest.mark.parametrize("fast", [True, False])
def test_logits_of_several_spans_are_those_of_the_whole_row(family: str, fast: bool) -> None:
    lm, maker = frozen(family), Maker(frozen(family).shape)
    owners = [Edits(), maker.prefix().compose(maker.linear())]
    rows = [_Spanned(_ids(0), 1), Row(_ids(1), 0, 30), _Spanned(_ids(2), 0)]
    batch, options = pack(rows, owners), ForwardOptions(fast=fast)
    assert ForwardContext(batch, options).narrows is fast
    with torch.no_grad():
        whole = pack([Row(row.ids, row.owner, 0) for row in rows], owners)
        expected = whole.split_kept(lm(whole))
        got = batch.split_kept(lm(batch, options))
    for row, ours, theirs in zip(rows, got, expected, strict=True):
        wanted = torch.cat([theirs[start:stop] for start, stop in row.spans])
        torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)


def test_spans_of_a_row_that_continues_a_past_see_it() -> None:
    lm, ids = frozen("llama"), _ids(3)
    options = ForwardOptions(cache=KeyValueCache(3, LENGTH + 4))
    with torch.no_grad():
        expected = lm(pack([Row([7, 8, 9, 10, *ids], 0, 4)], [Edits()]))
        lm(pack([Row([7, 8, 9, 10], past=Past(2, 0))], [Edits()]), options)
        got = lm(pack([_Spanned(ids, past=Past(2, 4))], [Edits()]), options)
    wanted = torch.cat([expected[start:stop] for start, stop in SPANS])
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_rows_with_and_without_a_past_are_no_batch() -> None:
    with pytest.raises(InputError, match="1 of 2 rows continue a past"):
        pack([Row([5, 6], past=Past(0, 0)), Row([5, 6])], [Edits()])


@pytest.mark.parametrize("past", [None, Past(0, 0)])
def test_a_past_without_its_cache_and_a_cache_without_a_past_are_refused(past: Past | None) -> None:
    options = ForwardOptions(cache=None if past else KeyValueCache(1, 8))
    with pytest.raises(InputError, match="got no cache" if past else "got a cache"):
        frozen("gpt2")(pack([Row([5, 6], past=past)], [Edits()]), options)


def test_what_is_given_does_not_change_and_serves_any_number_of_forwards() -> None:
    lm, batch = frozen("llama"), pack([Row(_ids(0), 0, 30), Row(_ids(1), 0, 20)], [Edits()])
    with torch.no_grad():
        assert torch.equal(lm(batch), lm(batch))
    assert current_forward() is None, "nothing is left behind"
    for given, name in ((batch, "ids"), (ForwardOptions(), "fast"), (batch.rows[0], "spans")):
        with pytest.raises(AttributeError):
            setattr(given, name, None)
