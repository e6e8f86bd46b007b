"""Batches of pretraining documents, and their loss.

Every row of a batch is one document, rows of like length stand together, and half of the rows
start at a random position, so that a model moved to the right by a prompt works as well. What an
answer says weighs ten times what nobody can foresee (the names in an article): copying then forms
in less than half the tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from peftlab.demo.documents import Document
from peftlab.demo.recipe import CONTEXT, END, Recipe

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_POOL = 1024


@dataclass(frozen=True)
class Batch:
    """Right-padded documents, all (rows, length): ids, positions, and the weight of each token's
    loss (0 where padded)."""

    ids: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor


_Row = tuple[list[int], list[float]]


def batches(
    tokenizer: PreTrainedTokenizerFast, documents: Iterator[Document], rng: Random, recipe: Recipe
) -> Iterator[Batch]:
    """Endless batches of about `recipe.tokens_per_step` tokens, rows of like length together."""
    while True:
        pool = list(itertools.islice(documents, _POOL))
        rows = sorted(_rows(tokenizer, pool, recipe.open_weight), key=lambda row: len(row[0]))
        groups: list[list[_Row]] = [[]]
        for row in rows:
            if len(row[0]) * (len(groups[-1]) + 1) > recipe.tokens_per_step:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from (_padded(group, rng) for group in groups)


def _rows(
    tokenizer: PreTrainedTokenizerFast, documents: list[Document], open_weight: float
) -> Iterator[_Row]:
    """Ids and loss weights of each document with its end token; over-long ones are left out."""
    encoded = tokenizer(
        [document.text + END for document in documents], return_offsets_mapping=True
    )
    for document, ids, offsets in zip(
        documents, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        marks = [decided for text, decided in document.pieces for _ in text] + [True] * len(END)
        if len(ids) <= CONTEXT:
            yield ids, [1.0 if marks[end - 1] else open_weight for _, end in offsets]


def _padded(rows: list[_Row], rng: Random) -> Batch:
    import torch

    length = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    starts = torch.zeros(len(rows), 1, dtype=torch.long)
    for index, (row, weight) in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        weights[index, : len(row)] = torch.tensor(weight)
        if rng.random() < 0.5:
            starts[index] = rng.randrange(CONTEXT - length + 1)
    return Batch(ids, starts + torch.arange(length), weights)


def weighted_loss(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted mean loss for training, and the mean loss of the fully weighted tokens."""
    import torch

    hidden = model.transformer(batch.ids, position_ids=batch.positions)[0]
    kept = batch.weights[:, 1:] > 0
    logits = model.lm_head(hidden[:, :-1][kept]).float()
    losses = torch.nn.functional.cross_entropy(logits, batch.ids[:, 1:][kept], reduction="none")
    weights = batch.weights[:, 1:][kept]
    decided = weights == 1.0
    return (losses * weights).sum() / weights.sum(), losses[decided].detach().mean()
