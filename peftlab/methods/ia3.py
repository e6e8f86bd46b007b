"""IA3: keys, values and the feed-forward's inner activations rescaled by trained vectors.

Liu et al. 2022, arXiv:2205.05638, section 3.3. As in PEFT a projection's whole output is scaled,
its bias included.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftlab.bases.shapes import ModelShape, Target
from peftlab.edits import Edits, LinearEdit
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Shapes, State, register

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task


@register("ia3")
@dataclass(frozen=True, kw_only=True)
class IA3(BeginningMethod):
    """Three vectors a block.

    Settings:
        targets: projections whose output is scaled. feedforward: projections whose input is.
    """

    sites: ClassVar = ("linear",)
    starts_as_base: ClassVar = True

    targets: tuple[str, ...] = ("k", "v")
    feedforward: tuple[str, ...] = ("down",)

    @property
    def learning_rate(self) -> float:
        return 1e-1

    def _outputs(self, shape: ModelShape) -> list[Target]:
        return shape.targets(self.targets) if self.targets else []

    def _inputs(self, shape: ModelShape) -> list[Target]:
        return shape.targets(self.feedforward) if self.feedforward else []

    def check(self, shape: ModelShape) -> None:
        if not [*self._outputs(shape), *self._inputs(shape)]:
            raise InputError("ia3: targets and feedforward are empty, so nothing would be trained")

    def stored(self, shape: ModelShape) -> Shapes:
        outputs: Shapes = {f"{t.name}.out": (t.out_features,) for t in self._outputs(shape)}
        return outputs | {f"{t.name}.in": (t.linear.in_features,) for t in self._inputs(shape)}

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        return State({name: torch.ones(size) for name, size in self.stored(model.shape).items()})

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        by_linear: dict[str, list[Target]] = defaultdict(list)
        for target in self._outputs(model.shape):
            by_linear[target.linear.path].append(target)
        edits = {path: _scaled(parts, state, model) for path, parts in by_linear.items()}
        for target in self._inputs(model.shape):
            edits[target.linear.path] = LinearEdit(in_scale=state.tensors[f"{target.name}.in"])
        return Edits(linear=edits, begin=self.begin)


def _scaled(parts: list[Target], state: State, model: FrozenLM) -> LinearEdit:
    linear = parts[0].linear
    first = state.tensors[f"{parts[0].name}.out"]
    scale = torch.ones(linear.out_features, device=first.device)
    for part in parts:
        rows = torch.tensor(part.row_indices, device=first.device)
        scale = scale.index_copy(0, rows, state.tensors[f"{part.name}.out"])
    if not linear.bias:
        return LinearEdit(out_scale=scale)
    bias = model.gather(f"{linear.path}.bias").float()
    return LinearEdit(out_scale=scale, bias=(scale - 1) * bias)
