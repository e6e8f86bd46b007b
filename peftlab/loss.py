"""The loss: cross-entropy of the target's tokens and of its end, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.batch import Batch, Row, pack

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded

# Evaluation packs rows up to this many tokens: enough to fill a matmul, little enough for memory.
_TOKENS_A_BATCH = 2048


def training_row(encoded: Encoded, owner: int = 0) -> Row:
    """The row whose kept logits predict the target and its end; the end is never an input."""
    return Row(encoded.ids[:-1], owner, encoded.target_start - 1)


def labels(encoded: Sequence[Encoded], batch: Batch) -> torch.Tensor:
    """What the batch's kept logits are to predict, [K]."""
    ids = [i for row in batch.order for i in encoded[row].ids[encoded[row].target_start :]]
    return torch.tensor(ids, device=batch.ids.device)


def token_losses(
    model: FrozenLM, batch: Batch, encoded: Sequence[Encoded], smoothing: float = 0.0
) -> torch.Tensor:
    """The cross-entropy in nats of every target token, [K], in packed order, in float32."""
    logits = model(batch)
    wanted = labels(encoded, batch)
    return torch.nn.functional.cross_entropy(
        logits.float(), wanted, reduction="none", label_smoothing=smoothing
    )


@torch.no_grad()
def row_losses(
    model: FrozenLM, edits: Edits, encoded: Sequence[Encoded]
) -> tuple[list[float], list[int]]:
    """Every row's summed loss in nats and its number of target tokens."""
    sums, counts = [0.0] * len(encoded), [len(e.ids) - e.target_start for e in encoded]
    for chunk in _chunks(encoded):
        rows = [encoded[i] for i in chunk]
        batch = pack([training_row(row) for row in rows], [edits], device=model.device)
        for i, losses in zip(
            chunk, batch.split_kept(token_losses(model, batch, rows)), strict=True
        ):
            sums[i] = float(losses.double().sum())
    return sums, counts


def mean_loss(model: FrozenLM, edits: Edits, encoded: Sequence[Encoded]) -> float:
    """The loss per target token over all rows.

    Raises:
        InputError: there are no rows.
    """
    if not encoded:
        raise InputError("a loss over no rows is not defined: the split is empty")
    sums, counts = row_losses(model, edits, encoded)
    return sum(sums) / sum(counts)


def _chunks(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """Indices by length, cut where the packed tokens would exceed the limit."""
    chunk: list[int] = []
    tokens = 0
    for i in sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids)):
        if chunk and tokens + len(encoded[i].ids) > _TOKENS_A_BATCH:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(i)
        tokens += len(encoded[i].ids)
    if chunk:
        yield chunk
