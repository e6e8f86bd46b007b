"""Fine-tuning of the last k blocks (FT-TOP2 of Li & Liang 2021, arXiv:2101.00190, is k = 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from peftlab.bases.shapes import ModelShape
from peftlab.errors import InputError
from peftlab.methods.base import register
from peftlab.methods.chosen_weights import ChosenWeights, final_norm


@register("last_k")
@dataclass(frozen=True, kw_only=True)
class LastK(ChosenWeights):
    """Trains the top `k` blocks, and the final norm where asked.

    Nothing below changes, so no gradient flows there and the trunk's activations can be kept.
    """

    k: Annotated[int, Ge(1)] = 1
    final_norm: bool = False

    @property
    def learning_rate(self) -> float:
        return 3e-3

    def check(self, shape: ModelShape) -> None:
        if self.k > shape.layers:
            raise InputError(f"last_k: k={self.k}, but this model has {shape.layers} blocks")

    def names(self, shape: ModelShape) -> list[str]:
        blocks = range(shape.layers - self.k, shape.layers)
        chosen = [name for block in blocks for name in shape.block_parameters(block)]
        return chosen + (final_norm(shape) if self.final_norm else [])
