"""BERTScore (Zhang et al. 2020): greedy matching of contextual embeddings by cosine.

    P = Σ_i w_i max_j cos(x_i, y_j) / Σ_i w_i  over the prediction's tokens,  R likewise over the
    reference's,  F = 2 P R / (P + R)

Start and end tokens may be matched but weigh nothing; the others weigh 1, or with `idf`
log((N + 1) / (n + 1)) over the N references. Of several references the best F counts. Not rescaled
by a baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from peftlab.metrics.errors import MetricOptionError
from peftlab.metrics.means import MeanOverExamples, column
from peftlab.metrics.neural.encoder import Embedded, TextEncoder, inverse_frequencies
from peftlab.metrics.registry import Rows

if TYPE_CHECKING:
    import torch

LAYERS = {
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9,
    "distilbert-base-uncased": 5,
    "distilroberta-base": 5,
    "roberta-base": 10,
    "roberta-large": 17,
    "microsoft/deberta-large-mnli": 18,
    "microsoft/deberta-xlarge-mnli": 40,
}
"""The layer that its authors found to agree best with people (bert-score's table)."""


class BertScore(MeanOverExamples):
    """BERTScore F.

    Args:
        model: hub id or folder of an encoder.
        layer: whose output is compared; known for the models in `LAYERS`.
        idf: weigh tokens by inverse document frequency over the references.
        device: where the model runs.
    """

    def __init__(
        self,
        model: str = "roberta-large",
        layer: int | None = None,
        idf: bool = False,
        device: str | None = None,
    ) -> None:
        if layer is None and model not in LAYERS:
            raise MetricOptionError(
                f"no best layer is known for {model!r}; give one: bertscore:model={model}:layer=…"
                f" (known: {', '.join(LAYERS)})"
            )
        self.layer = LAYERS[model] if layer is None else layer
        self.idf = idf
        self.encoder = TextEncoder(model, device)
        layers = self.encoder.model.config.num_hidden_layers
        if not 0 <= self.layer <= layers:
            raise MetricOptionError(f"layer {self.layer} of {model!r}: it has layers 0 to {layers}")

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """F with the best reference, [examples, 1]."""
        ids = map(self.encoder.ids, chain.from_iterable(references)) if self.idf else ()
        frequencies = inverse_frequencies(ids)
        unseen = math.log(sum(map(len, references)) + 1)

        def best(text: str, targets: Sequence[str]) -> float:
            ours, *theirs = self.encoder.embed([text, *targets])
            weigh = (self._weights(item, frequencies, unseen) for item in theirs)
            mine = self._weights(ours, frequencies, unseen)
            pairs = zip(theirs, weigh, strict=True)
            return max(self._score(ours, mine, item, weights) for item, weights in pairs)

        return column(best(*pair) for pair in zip(predictions, references, strict=True))

    def _weights(
        self, text: Embedded, frequencies: Mapping[int, float], unseen: float
    ) -> torch.Tensor:
        import torch

        if self.idf:
            return torch.tensor([frequencies.get(number, unseen) for number in text.ids])
        special = {self.encoder.tokenizer.cls_token_id, self.encoder.tokenizer.sep_token_id}
        return torch.tensor([float(number not in special) for number in text.ids])

    def _score(
        self, ours: Embedded, mine: torch.Tensor, theirs: Embedded, weights: torch.Tensor
    ) -> float:
        import torch

        if not mine.sum() or not weights.sum():
            return 0.0
        x, y = (torch.nn.functional.normalize(e.states[self.layer], dim=-1) for e in (ours, theirs))
        cosine = x @ y.T
        precision = float((cosine.amax(dim=1) * mine).sum() / mine.sum())
        recall = float((cosine.amax(dim=0) * weights).sum() / weights.sum())
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
