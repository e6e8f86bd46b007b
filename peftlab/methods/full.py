"""Full fine-tuning: every parameter of the base, on a copy of its own."""

from __future__ import annotations

from dataclasses import dataclass

from peftlab.bases.shapes import ModelShape
from peftlab.methods.base import register
from peftlab.methods.chosen_weights import ChosenWeights


@register("full")
@dataclass(frozen=True, kw_only=True)
class FullFineTuning(ChosenWeights):
    """Trains everything; the yardstick for quality and for cost."""

    @property
    def learning_rate(self) -> float:
        return 6e-4

    def names(self, shape: ModelShape) -> list[str]:
        return list(shape.parameters)
