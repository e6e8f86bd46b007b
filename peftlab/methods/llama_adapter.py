"""LLaMA-Adapter: gated prompts inside the attention of the top blocks.

Zhang et al. 2023, arXiv:2303.16199, section 3: each block's prompt is projected by its frozen W_k
and W_v, attended with a softmax of its own, multiplied by a gate that starts at zero, and added
before the output projection. The gate is one number a head through tanh, as in the
official training code; PEFT's is one number a block without tanh (`gate=layer`, `tanh=false`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits, KeysValues
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Shapes, State, register

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task


@register("llama_adapter")
@dataclass(frozen=True, kw_only=True)
class LlamaAdapter(BeginningMethod):
    """`length` prompt vectors in each of the top `layers` blocks.

    0 stands for 15 of 16, the official script's 30 of 32.
    """

    sites: ClassVar = ("attention",)
    starts_as_base: ClassVar = True
    size: ClassVar = "length"

    length: Annotated[int, Ge(1)] = 10
    layers: Annotated[int, Ge(0)] = 0
    gate: Literal["head", "layer"] = "head"
    tanh: bool = True

    @property
    def learning_rate(self) -> float:
        return 3e-2

    def blocks(self, shape: ModelShape) -> range:
        """The adapted blocks."""
        lowest = shape.layers - self.layers if self.layers else shape.layers // 16
        return range(lowest, shape.layers)

    def check(self, shape: ModelShape) -> None:
        if self.layers > shape.layers:
            raise InputError(
                f"llama_adapter: layers={self.layers}, but this model has {shape.layers} blocks"
            )

    def stored(self, shape: ModelShape) -> Shapes:
        gates = shape.heads if self.gate == "head" else 1
        one: Shapes = {"prompt": (self.length, shape.hidden), "gate": (gates,)}
        return {f"{b}.{name}": size for b in self.blocks(shape) for name, size in one.items()}

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        return State(
            {
                name: torch.zeros(size)
                if name.endswith(".gate")
                else torch.randn(size, generator=rng)
                for name, size in self.stored(model.shape).items()
            }
        )

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        attention = {}
        for block in self.blocks(model.shape):
            keys, values = model.project_keys_values(block, state.tensors[f"{block}.prompt"])
            gate = state.tensors[f"{block}.gate"]
            attention[block] = (KeysValues(keys, values, torch.tanh(gate) if self.tanh else gate),)
        return Edits(attention=attention, begin=self.begin)
