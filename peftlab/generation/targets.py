"""Losses of given targets after prompts that a session has just read.

The prompt's keys and values lie in the row's slot; a target is read behind them and forgotten, so
whatever the row decodes next is written over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from peftlab.frozen.packing import pack
from peftlab.generation.session import Session
from peftlab.generation.state import DecodingState
from peftlab.loss import token_losses, training_row
from peftlab.tasks import Encoded
from peftlab.token_limits import token_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

Target = tuple[int, ...]
_TOKENS = 2048  # of targets in one forward


class _Asked(NamedTuple):
    """The place of a target among all that are asked for, its row, and its ids."""

    place: int
    row: DecodingState
    ids: Target


@torch.no_grad()
def target_losses(
    session: Session,
    rows: Sequence[DecodingState],
    logits: torch.Tensor,
    targets: Sequence[Sequence[Target]],
) -> list[list[float]]:
    """Each row's summed losses in nats, one a target.

    Args:
        rows: that have joined the session, and read no more than their prompts. logits: what
            follows each of them, [R, V].
        targets: each row's, with their ends.
    """
    starts = logits.float().log_softmax(-1)
    sums = [[-float(starts[i, ids[0]]) for ids in own] for i, own in enumerate(targets)]
    for number in range(max(map(len, targets), default=0)):
        asked = [
            _Asked(i, row, own[number])
            for i, (row, own) in enumerate(zip(rows, targets, strict=True))
            if number < len(own) and len(own[number]) > 1
        ]
        for one, loss in _continued(session, asked):
            sums[one.place][number] += loss
    return sums


def _continued(session: Session, asked: Sequence[_Asked]) -> Iterator[tuple[_Asked, float]]:
    """Each target's summed losses but for its first token's; one a row."""
    model, sizes = session.model, [len(one.ids) for one in asked]
    for chunk in token_chunks(asked, sizes, _TOKENS):
        owners = list({id(one.row.owner): one.row.owner for one in chunk}.values())
        index = {id(owner): i for i, owner in enumerate(owners)}
        encoded = [Encoded.trained_from(one.ids, 1) for one in chunk]
        given = [
            training_row(row, index[id(one.row.owner)])._replace(past=one.row.continued)
            for row, one in zip(encoded, chunk, strict=True)
        ]
        batch = pack(given, [owner.edits for owner in owners], device=model.device)
        losses = token_losses(model, batch, encoded, options=session.options)
        for one, own in zip(chunk, batch.split_kept(losses), strict=True):
            yield one, float(own.double().sum())
