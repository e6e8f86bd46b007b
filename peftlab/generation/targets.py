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
from peftlab.loss import losses_of_rows, training_row
from peftlab.tasks import Encoded
from peftlab.token_limits import token_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

Target = tuple[int, ...]
_TOKENS = 2048  # of targets in one forward


class _Asked(NamedTuple):
    """The place of a target among all that are asked for, its rows, their shares, and its ids."""

    place: int
    rows: Sequence[DecodingState]
    shares: tuple[float, ...]
    ids: Target


@torch.no_grad()
def target_losses(
    session: Session,
    rows: Sequence[Sequence[DecodingState]],
    shares: Sequence[tuple[float, ...]],
    logits: torch.Tensor,
    targets: Sequence[Sequence[Target]],
) -> list[list[float]]:
    """Each prompt's summed losses in nats, one a target.

    Args:
        rows: of each prompt, one an expert, that have joined the session, and read no more than
            that. shares: of each prompt's experts. logits: what follows each prompt, [P, V].
        targets: each prompt's, with their ends.
    """
    starts = logits.float().log_softmax(-1)
    sums = [[-float(starts[i, ids[0]]) for ids in own] for i, own in enumerate(targets)]
    for number in range(max(map(len, targets), default=0)):
        asked = [
            _Asked(i, rows[i], shares[i], own[number])
            for i, own in enumerate(targets)
            if number < len(own) and len(own[number]) > 1
        ]
        for one, loss in _continued(session, asked):
            sums[one.place][number] += loss
    return sums


def _continued(session: Session, asked: Sequence[_Asked]) -> Iterator[tuple[_Asked, float]]:
    """Each target's summed losses but for its first token's; one a prompt."""
    for shares in dict.fromkeys(one.shares for one in asked):
        alike = [one for one in asked if one.shares == shares]
        sizes = [len(one.ids) * len(shares) for one in alike]
        for chunk in token_chunks(alike, sizes, _TOKENS):
            yield from zip(chunk, _losses(session, chunk, shares), strict=True)


def _losses(
    session: Session, asked: Sequence[_Asked], shares: tuple[float, ...]
) -> Iterator[float]:
    model, experts = session.model, range(len(shares))
    rows = [one.rows[number] for number in experts for one in asked]
    owners = list({id(row.owner): row.owner for row in rows}.values())
    index = {id(owner): i for i, owner in enumerate(owners)}
    encoded = [Encoded.trained_from(one.ids, 1) for one in asked]
    given = [
        training_row(ids, index[id(row.owner)])._replace(past=row.continued)
        for row, ids in zip(rows, encoded * len(shares), strict=True)
    ]
    batch = pack(given, [owner.edits for owner in owners], device=model.device)
    for own in losses_of_rows(model, batch, encoded, shares, session.options):
        yield float(own.double().sum())
