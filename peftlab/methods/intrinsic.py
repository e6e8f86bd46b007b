"""Training in a random subspace: all weights move, in few directions.

W = W₀ + P θ with θ of d numbers and P a fixed random projection (Li et al. 2018, arXiv:1804.08838,
section 2); the least d that reaches 90 % of full fine-tuning's quality is the task's intrinsic
dimension. P is Fastfood, as in Aghajanyan et al. 2021, arXiv:2012.13255, whose structure-aware form
(its equation 4) spends some of the d numbers on a scale for each layer.

The papers give P's columns the length 1; here its rows have it. That is another unit of θ alone,
and makes a step of Adam move each weight about as far as in full fine-tuning, whatever d and the
base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Shapes, State, register
from peftlab.methods.fastfood import fastfood

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task

_SEEDS = 1 << 31


@register("intrinsic")
@dataclass(frozen=True, kw_only=True)
class Intrinsic(BeginningMethod):
    """`dimension` numbers that move every weight of the base; the projection is stored as a seed.

    Settings:
        dimension: d.
        structure: whether one of the d numbers scales the change of each block, and one that of all
            that lies outside the blocks.
    """

    sites: ClassVar = ("weights",)
    starts_as_base: ClassVar = True
    size: ClassVar = "dimension"

    dimension: Annotated[int, Ge(1)] = 1000
    structure: bool = False

    @property
    def learning_rate(self) -> float:
        return 1e-2

    def check(self, shape: ModelShape) -> None:
        if self.dimension > shape.size:
            raise InputError(
                f"intrinsic: dimension={self.dimension:,} is above the {shape.size:,} parameters "
                "of this model"
            )
        if self.structure and self.dimension <= shape.layers + 1:
            raise InputError(
                f"intrinsic: dimension={self.dimension} leaves no direction beside the "
                f"{shape.layers + 1} scales of structure=true"
            )

    def stored(self, shape: ModelShape) -> Shapes:
        if not self.structure:
            return {"directions": (self.dimension,)}
        scales = shape.layers + 1
        return {"directions": (self.dimension - scales,), "scales": (scales,)}

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        start = {"directions": torch.zeros, "scales": torch.ones}
        tensors = {name: start[name](size) for name, size in self.stored(model.shape).items()}
        return State(tensors, {"projection": int(torch.randint(_SEEDS, (), generator=rng))})

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        shape, theta = model.shape, state.tensors["directions"]
        projection = state.text.get("projection")
        if type(projection) is not int or not 0 <= projection < _SEEDS:
            raise InputError(
                f"intrinsic: the projection's seed is {projection!r:.40}; a whole number from 0 to "
                f"{_SEEDS - 1:,} was expected"
            )
        project = fastfood(projection, len(theta), shape.size, theta.device)
        sizes = [size.numel() for size in map(torch.Size, shape.parameters.values())]
        weights = {}
        for name, change in zip(shape.parameters, project(theta).split(sizes), strict=True):
            if self.structure:
                block = shape.block_of(name)
                change = change * state.tensors["scales"][shape.layers if block is None else block]
            weights[name] = model.gather(name).float() + change.view(shape.parameters[name])
        return Edits(weights=weights, begin=self.begin)
