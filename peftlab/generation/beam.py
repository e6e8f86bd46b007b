"""Beam search as transformers defines it (`early_stopping=False`), for one prompt's hypotheses.

A finished hypothesis of n tokens scores log p / n^length_penalty. The search ends when no running
beam, at its present length, scores above the worst of `beams` finished ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class Beams:
    """The running and finished hypotheses of one prompt."""

    width: int
    ends: Sequence[int]
    limit: int
    length_penalty: float
    running: list[tuple[float, list[int]]] = field(default_factory=lambda: [(0.0, [])])
    finished: list[tuple[float, list[int]]] = field(default_factory=list)
    done: bool = False

    def advance(self, chances: torch.Tensor) -> list[int]:
        """Extend every running beam by one token.

        Args:
            chances: log-probabilities [beams, V], one row a running beam. As in transformers, what
                is forbidden is −inf among them, and the others do not share out its probability.

        Returns:
            for each new running beam the index of the old one that it extends.
        """
        scores = chances + torch.tensor([[s] for s, _ in self.running], device=chances.device)
        # So many that as many beams go on even where every end of each is among them.
        candidates = (1 + len(self.ends)) * self.width
        best = scores.flatten().topk(min(candidates, scores.numel()))
        extended: list[tuple[float, list[int], int]] = []
        for rank, (score, place) in enumerate(
            zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ):
            parent, token = divmod(place, chances.shape[-1])
            tokens = [*self.running[parent][1], token]
            if token not in self.ends and len(tokens) < self.limit:
                extended.append((score, tokens, parent))
            elif rank < self.width:
                self.finished.append((score / len(tokens) ** self.length_penalty, tokens))
        self.finished = sorted(self.finished, key=lambda f: -f[0])[: self.width]
        extended = extended[: self.width]
        self.running = [(score, tokens) for score, tokens, _ in extended]
        self.done = not self.running or self._cannot_improve()
        return [parent for _, _, parent in extended]

    def _cannot_improve(self) -> bool:
        score, tokens = self.running[0]
        full = len(self.finished) == self.width
        return full and score / len(tokens) ** self.length_penalty <= self.finished[-1][0]

    def best(self) -> list[int]:
        """The tokens of the best finished hypothesis, its end included."""
        return self.finished[0][1]
