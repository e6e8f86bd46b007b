"""What last-k, chosen layers and full fine-tuning have in common: they replace named parameters."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Shapes, State

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task


@dataclass(frozen=True, kw_only=True)
class ChosenWeights(BeginningMethod):
    """Trains copies of some of the base's parameters, starting from their values."""

    sites: ClassVar = ("weights",)
    starts_as_base: ClassVar = True

    @abstractmethod
    def names(self, shape: ModelShape) -> list[str]:
        """The parameters that are trained."""

    def stored(self, shape: ModelShape) -> Shapes:
        return {name: shape.parameters[name] for name in self.names(shape)}

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        return State({name: model.copy_of(name) for name in self.names(model.shape)})

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        return Edits(weights=state.tensors, begin=self.begin)


def final_norm(shape: ModelShape) -> list[str]:
    """The parameters of the norm after the last block."""
    outside = [name for name in shape.parameters if shape.block_of(name) is None]
    return [name for name in outside if "norm" in name or ".ln_f." in name]


def head(shape: ModelShape) -> list[str]:
    """The head's parameters; where it is tied, these are the embeddings."""
    own = [name for name in shape.parameters if name.startswith(("lm_head.", "embed_out."))]
    return own or [next(name for name, size in shape.parameters.items() if size[0] == shape.vocab)]
