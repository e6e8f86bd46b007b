"""The examples of one step of a search: its candidates are scored as owners of one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from peftlab.frozen.batch import pack
from peftlab.loss import token_losses, training_row
from peftlab.methods.base import Candidate
from peftlab.train.config import TrainConfig
from peftlab.train.rows import Rows

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Template

# Candidates are packed up to this many tokens, or else one at a time.
_TOKENS_A_BATCH = 8192


@dataclass
class Examples:
    """What `Method.update` is given (see the protocol there).

    Attributes:
        pairs: the training split. indices: the examples of this step.
        tokens: packed tokens that have gone through the base so far. passes: the same, those of a
            backward pass once more.
    """

    model: FrozenLM
    template: Template
    pairs: Rows
    indices: Sequence[int]
    config: TrainConfig
    rng: torch.Generator
    tokens: int = 0
    passes: int = 0

    def encode(self, template: Template, count: int | None = None) -> list[Encoded]:
        """The rows of all examples, or of the first `count`, in a template."""
        rows = self.pairs.under(template)
        return [rows[i] for i in self.indices[:count]]

    @torch.no_grad()
    def losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """Every candidate's loss per target token; all of them are owners of one batch."""
        found: list[float] = []
        for chunk in _chunks(candidates):
            sums = self._sums(chunk)
            found += [float(s) / _targets(c.rows) for s, c in zip(sums, chunk, strict=True)]
        return found

    def gradient(self, candidate: Candidate) -> torch.Tensor:
        """The gradient [P, D] of the candidate's loss per target token by `edits.embeddings`."""
        assert candidate.edits.embeddings is not None
        vectors = candidate.edits.embeddings.detach().requires_grad_()
        edits = replace(candidate.edits, embeddings=vectors)
        gradient, targets = torch.zeros_like(vectors), _targets(candidate.rows)
        for start in range(0, len(candidate.rows), self.config.batch_size):
            rows = candidate.rows[start : start + self.config.batch_size]
            before = self.tokens
            share = self._sums([Candidate(edits, rows)])[0] / targets
            gradient += torch.autograd.grad(share, vectors)[0]
            self.passes += self.tokens - before
        return gradient

    def _sums(self, candidates: Sequence[Candidate]) -> list[torch.Tensor]:
        """Each candidate's summed loss."""
        encoded = [row for candidate in candidates for row in candidate.rows]
        rows = [
            training_row(row, owner)
            for owner, candidate in enumerate(candidates)
            for row in candidate.rows
        ]
        batch = pack(
            rows,
            [candidate.edits for candidate in candidates],
            device=self.model.device,
            share=self.config.share,
            checkpoint=self.config.recompute,
            fast=self.config.fast,
        )
        self.tokens += len(batch.ids)
        self.passes += len(batch.ids)
        losses = token_losses(self.model, batch, encoded)
        return [losses[start:stop].sum() for start, stop in batch.kept_spans.values()]


def _targets(rows: Sequence[Encoded]) -> int:
    return sum(len(row.ids) - row.target_start for row in rows)


def _chunks(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    chunk: list[Candidate] = []
    tokens = 0
    for candidate in candidates:
        size = sum(len(row.ids) for row in candidate.rows)
        if chunk and tokens + size > _TOKENS_A_BATCH:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(candidate)
        tokens += size
    if chunk:
        yield chunk
