"""Sources read once: what the bare base leaves of the tokens before a row's cue.

A change that begins at the cue leaves the keys and values before it those of the frozen base, so
they are the same for every epoch, rate, seed, method and adapter (activated LoRA, Greenewald et al.
2025, arXiv:2504.12397, section 3, does so for LoRA; here every method does).

Legend: H_kv key/value heads, S tokens before the cue, hd head size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.batch import GivenPast
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from peftlab.trunk import TrunkStore, number_format

Ids = tuple[int, ...]


def continued(model: FrozenLM, rows: Sequence[Row], store: TrunkStore | None = None) -> list[Row]:
    """Rows whose tokens before `begin` have been read, once where several have the same.

    Args:
        store: where what was read is kept, and looked for first.

    Raises:
        InputError: logits are wanted of what comes before.

    Returns:
        the rows themselves where none begins later than at its first token; else rows that all have
        a past, an empty one where nothing came before.
    """
    if not any(row.begin for row in rows):
        return list(rows)
    for row in rows:
        if any(first < row.begin for first, _ in row.spans):
            raise InputError(
                f"a row begins at its token {row.begin}, and logits of earlier ones are wanted"
            )
    pasts = iter(read(model, [tuple(row.ids[: row.begin]) for row in rows if row.begin], store))
    given = [next(pasts) if row.begin else None for row in rows]
    empty = _empty(next(past for past in given if past is not None))
    return [
        row._replace(
            ids=row.ids[row.begin :],
            keep=tuple((first - row.begin, stop - row.begin) for first, stop in row.spans),
            past=past or empty,
            begin=0,
        )
        for row, past in zip(rows, given, strict=True)
    ]


def read(model: FrozenLM, texts: Sequence[Ids], store: TrunkStore | None) -> list[GivenPast]:
    """What the bare base leaves of each text; one that comes again is read once."""
    pasts = {ids: _past(model, ids, store) for ids in dict.fromkeys(texts)}
    return [pasts[ids] for ids in texts]


def _past(model: FrozenLM, ids: Ids, store: TrunkStore | None) -> GivenPast:
    if store is None:
        return _read(model, ids)
    kept = store.computed(_key(model, ids), lambda: _packed(_read(model, ids)), hold=False)
    return _unpacked(len(ids), [tensor.to(model.device) for tensor in kept])


def _key(model: FrozenLM, ids: Ids) -> str:
    """Names what the tokens leave: the base, the number format and the tokens."""
    told = f"{model.fingerprint} owned past {number_format(model.device.type)} {ids}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _packed(past: GivenPast) -> list[torch.Tensor]:
    """All as one tensor, which is read in one piece, where blocks are alike."""
    each = [tensor for pair in past.keys_values for tensor in pair]
    return [torch.stack(each)] if len({tensor.shape for tensor in each}) == 1 else each


def _unpacked(length: int, packed: list[torch.Tensor]) -> GivenPast:
    each = list(packed[0].unbind()) if len(packed) == 1 else packed
    return GivenPast(length, list(zip(each[::2], each[1::2], strict=True)))


@torch.no_grad()
def _read(model: FrozenLM, ids: Ids) -> GivenPast:
    """What a text leaves in every block, [H_kv, S, hd].

    By itself: products of other numbers of rows round otherwise, and what is computed again has to
    be the same, bit for bit, whatever is missing beside it.
    """
    batch = pack([Row(ids, 0, len(ids))], [Edits()], device=model.device)
    collected = model.collected(batch)
    blocks = (collected[block] for block in range(model.shape.layers))
    return GivenPast(len(ids), [(_own(keys), _own(values)) for keys, values in blocks])


def _own(x: torch.Tensor) -> torch.Tensor:
    """In memory of its own, a head after the other."""
    return x.clone(memory_format=torch.contiguous_format)


def _empty(like: GivenPast) -> GivenPast:
    """A past of no tokens."""
    return GivenPast(0, [(keys[:, :0], values[:, :0]) for keys, values in like.keys_values])
