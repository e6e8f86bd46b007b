"""MoverScore (Zhao et al. 2019): 1 − the cheapest transport of one text's words onto the other's.

The settings are those of the authors' moverscore.py, which DART's script runs: of the last five
layers' unit-length states the minimum, mean and maximum are joined (power means); word pieces that
continue a word and punctuation are left out; n-grams are idf-weighted means of their words and
weigh the sum of their idf; the cost is the squared Euclidean distance of unit vectors. Idf is taken
over predictions and over references apart. Their code adds constants of 1e-6 to 1e-5 to
denominators, which is left out here.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from peftlab.metrics.means import MeanOverExamples, column
from peftlab.metrics.neural.encoder import Embedded, TextEncoder, inverse_frequencies
from peftlab.metrics.registry import Rows

if TYPE_CHECKING:
    import torch

_LAST_LAYERS = 5


class MoverScore(MeanOverExamples):
    """MoverScore.

    Args:
        model: hub id or folder of a BERT (the authors' is fine-tuned on MNLI).
        ngram: words per unit that is moved.
        first_reference: score against the first reference only, as DART's script does; else the
            best reference counts.
        device: where the model runs.
    """

    def __init__(
        self,
        model: str = "textattack/bert-base-uncased-MNLI",
        ngram: int = 1,
        first_reference: bool = False,
        device: str | None = None,
    ) -> None:
        self.encoder = TextEncoder(model, device)
        self.ngram = ngram
        self.first_reference = first_reference

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """1 − transport cost to the nearest reference, [examples, 1]."""
        kept = [targets[:1] if self.first_reference else targets for targets in references]
        ours = inverse_frequencies(map(self.encoder.ids, predictions))
        theirs = inverse_frequencies(map(self.encoder.ids, chain.from_iterable(kept)))

        def best(text: str, targets: Sequence[str]) -> float:
            first, *others = self.encoder.embed([text, *targets])
            units = self._units(first, ours)
            return max(1 - transport(*units, *self._units(item, theirs)) for item in others)

        return column(best(*pair) for pair in zip(predictions, kept, strict=True))

    def _units(self, text: Embedded, idf: Mapping[int, float]) -> tuple[Rows, Rows]:
        """Vectors, [units, 3 · width], and weights, [units], of the n-grams that are moved."""
        tokens = self.encoder.tokenizer.convert_ids_to_tokens(text.ids)
        words = [
            place
            for place, token in enumerate(tokens)
            if token not in string.punctuation and "##" not in token
        ]
        vectors = _power_means(text.states)[words].double().numpy()
        weights = np.array([idf[text.ids[place]] for place in words])
        size = min(self.ngram, len(words))
        starts = range(len(words) - size + 1)
        grams = [slice(start, start + size) for start in starts]
        means = np.stack([_weighted_mean(vectors[gram], weights[gram]) for gram in grams])
        return means, np.array([weights[gram].sum() for gram in grams])


def _power_means(states: torch.Tensor) -> torch.Tensor:
    """Minimum, mean and maximum of the last layers, [T, 3 · width]."""
    import torch

    last = torch.nn.functional.normalize(states[-_LAST_LAYERS:], dim=-1)
    return torch.cat([last.amin(dim=0), last.mean(dim=0), last.amax(dim=0)], dim=-1)


def _weighted_mean(vectors: Rows, weights: Rows) -> Rows:
    total = weights.sum()
    mean = (weights @ vectors) / total if total else vectors.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def transport(x: Rows, a: Rows, y: Rows, b: Rows) -> float:
    """Least cost of moving mass a at x onto mass b at y, both scaled to one; cost |x − y|².

    Without any mass (nothing but words that every text has) nothing is moved and the cost is 0 if
    both are without, else 1.
    """
    from scipy.optimize import linprog

    if not a.sum() or not b.sum():
        return float(math.isclose(a.sum(), b.sum()) is False)
    cost = ((x[:, None] - y[None]) ** 2).sum(axis=-1)
    rows = np.kron(np.eye(len(a)), np.ones(len(b)))
    columns = np.kron(np.ones(len(a)), np.eye(len(b)))
    masses = np.concatenate([a / a.sum(), b / b.sum()])
    solution = linprog(cost.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=masses)
    return float(solution.fun)
