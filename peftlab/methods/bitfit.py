"""BitFit: only biases are trained.  Ben Zaken et al. 2022, arXiv:2106.10199, section 3.

A linear of a block that has no bias gets a zero one, which is counted: on Llama-like models that is
every one of them. Norms train the bias they have; a norm without one stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits, LinearEdit
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Shapes, State, register

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task


@register("bitfit")
@dataclass(frozen=True, kw_only=True)
class BitFit(BeginningMethod):
    """The change of every linear's bias, and the norms' biases."""

    sites: ClassVar = ("linear", "weights")
    starts_as_base: ClassVar = True

    @property
    def learning_rate(self) -> float:
        return 3e-2

    def _norms(self, shape: ModelShape) -> list[str]:
        linear = {f"{x.path}.bias" for x in shape.linears}
        return [n for n in shape.parameters if n.endswith(".bias") and n not in linear]

    def stored(self, shape: ModelShape) -> Shapes:
        changes = {f"{x.path}.change": (x.out_features,) for x in shape.linears}
        return changes | {name: shape.parameters[name] for name in self._norms(shape)}

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        changes = {f"{x.path}.change": torch.zeros(x.out_features) for x in model.shape.linears}
        norms = {n: model.gather(n).float().clone() for n in self._norms(model.shape)}
        return State(changes | norms)

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        t = state.tensors
        return Edits(
            begin=self.begin,
            linear={x.path: LinearEdit(bias=t[f"{x.path}.change"]) for x in model.shape.linears},
            weights={n: t[n] for n in self._norms(model.shape)},
        )
