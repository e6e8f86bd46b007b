"""Prefix tuning: trained keys and values in every block.

Li & Liang 2021, arXiv:2101.00190, section 4. As in PEFT the prefix takes the positions 0…P−1 and
the text starts at P; at the cue it is an infix (section 7.3) and takes the P positions before it.
Keys and values are sized by the key/value heads, so grouped-query attention needs no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits, KeysValues
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Count, Params, Shapes, State, register
from peftlab.methods.prompt_tuning import fits_context
from peftlab.methods.soft_prompt import Start, start_ids
from peftlab.options import Formerly

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task


@register("prefix_tuning")
@dataclass(frozen=True, kw_only=True)
class PrefixTuning(BeginningMethod):
    """`length` keys and values a block.

    Settings:
        reparametrisation: none trains the keys and values themselves; mlp is the paper's Embedding
            → Linear → Tanh → Linear with `hidden` units between, dropped after training (section
            4.3); residual adds that MLP, its last layer zero at first, to keys and values of their
            own.
        initialisation: of the keys and values: those that real tokens leave in the frozen model
            (section 7.4), of a text, sampled vocabulary or labels; or random. With mlp there are
            none: it starts from random embeddings, as in the paper's code.
    """

    sites: ClassVar = ("attention",)
    size: ClassVar = "length"

    length: Annotated[int, Ge(1)] = 20
    reparametrisation: Annotated[Literal["none", "mlp", "residual"], Formerly("none")] = "residual"
    hidden: Annotated[int, Ge(1)] = 512
    initialisation: Start = "text"
    text: str = ""

    @property
    def learning_rate(self) -> float:
        return {"residual": 4e-3, "mlp": 1e-3, "none": 2e-2}[self.reparametrisation]

    def check(self, shape: ModelShape) -> None:
        fits_context(self.name, self.length, shape)

    def stored(self, shape: ModelShape) -> Shapes:
        return {"prefix": (shape.layers, 2, shape.kv_heads, self.length, shape.head_dim)}

    def count(self, shape: ModelShape) -> Count:
        direct = super().count(shape)
        if self.reparametrisation == "none":
            return direct
        d, m, width = shape.hidden, self.hidden, _width(shape)
        mlp = self.length * d + d * m + m + m * width + width
        own = direct.stored if self.reparametrisation == "residual" else 0
        return Count(mlp + own, direct.stored)

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        shape = model.shape
        if self.reparametrisation == "none":
            return State({"prefix": self._start(model, task, rng)})
        mlp = _mlp(self.length, shape.hidden, self.hidden, _width(shape), rng)
        if self.reparametrisation == "mlp":
            return State(mlp)
        zero = {name: torch.zeros_like(mlp[name]) for name in ("up.weight", "up.bias")}
        return State(mlp | zero | {"start": self._start(model, task, rng)})

    def _start(self, model: FrozenLM, task: Task, rng: torch.Generator) -> torch.Tensor:
        """Keys and values [L, 2, Hkv, P, hd] before training."""
        if self.initialisation == "random":
            return torch.randn(self.stored(model.shape)["prefix"], generator=rng)
        ids = start_ids(self.initialisation, self.length, self.text, model, task, rng)
        with torch.no_grad():
            kept = model.keys_values(Edits(), ids)
        keys = [kept[b].keys for b in range(model.shape.layers)]
        if self.begin == "cue":  # of position 0, from where they are turned to each row's cue
            keys = [model.rotary.back(b, own, 0) for b, own in enumerate(keys)]
        pairs = [torch.stack([own, kept[b].values]) for b, own in enumerate(keys)]
        return torch.stack(pairs).float().cpu()

    def materialise(self, state: State, model: FrozenLM) -> State:
        if "prefix" in state.tensors:
            return state
        shape, t = model.shape, state.tensors
        linear = torch.nn.functional.linear
        inner = torch.tanh(linear(t["embedding"], t["down.weight"], t["down.bias"]))
        flat = linear(inner, t["up.weight"], t["up.bias"])  # [P, 2·L·Hkv·hd]
        split = flat.view(-1, shape.layers, 2, shape.kv_heads, shape.head_dim)
        prefix = split.permute(1, 2, 3, 0, 4)
        return State({"prefix": t["start"] + prefix if "start" in t else prefix})

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        blocks = state.tensors["prefix"]  # [L, 2, Hkv, P, hd]
        attention = {b: (KeysValues(kv[0], kv[1]),) for b, kv in enumerate(blocks)}
        return Edits(attention=attention, begin=self.begin)


def _width(shape: ModelShape) -> int:
    return 2 * shape.layers * shape.kv_heads * shape.head_dim


def _mlp(length: int, d: int, m: int, width: int, rng: torch.Generator) -> Params:
    """torch's own initialisation of Embedding and Linear, drawn from our generator."""

    def uniform(*size: int, fan_in: int) -> torch.Tensor:
        return (torch.rand(size, generator=rng) * 2 - 1) * fan_in**-0.5

    return {
        "embedding": torch.randn(length, d, generator=rng),
        "down.weight": uniform(m, d, fan_in=d),
        "down.bias": uniform(m, fan_in=d),
        "up.weight": uniform(width, m, fan_in=m),
        "up.bias": uniform(width, fan_in=m),
    }
