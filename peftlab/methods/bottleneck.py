"""Bottleneck adapters: a small two-layer network in every block, in the four published places.

houlsby: after attention and after the feed-forward, GELU, layer norms trained too (Houlsby et al.
2019, arXiv:1902.00751, section 2.1). pfeiffer: after the feed-forward only, ReLU (Pfeiffer et al.
2021, arXiv:2005.00247). lin: after the feed-forward, with a layer norm of its own (Lin et al.
2020, arXiv:2004.03829). parallel: beside the feed-forward, scaled by 4 (He et al. 2022,
arXiv:2110.04366). The up-projection starts at zero in all of them, so training starts exactly at
the base; Houlsby's own code starts near zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Bottleneck, Edits, Sublayer
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Shapes, State, register

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task

_ACTIVATION: dict[str, Literal["relu", "gelu"]] = {
    "houlsby": "gelu", "pfeiffer": "relu", "lin": "relu", "parallel": "relu",
}  # fmt: skip


@register("bottleneck")
@dataclass(frozen=True, kw_only=True)
class BottleneckAdapter(BeginningMethod):
    """h ← h + up·act(down·x) in every block.

    Settings:
        kind: the place and form, see above. bottleneck: the inner size m.
        train_norms: also train the blocks' own norms; Houlsby's choice.
    """

    starts_as_base: ClassVar = True
    size: ClassVar = "bottleneck"

    kind: Literal["houlsby", "pfeiffer", "lin", "parallel"] = "pfeiffer"
    bottleneck: Annotated[int, Ge(1)] = 32
    train_norms: bool | None = None

    @property
    def sites(self) -> tuple[str, ...]:  # type: ignore[override]
        also = {"parallel": self.kind == "parallel", "weights": self._trains_norms}
        return ("sublayer", *(site for site, needed in also.items() if needed))

    @property
    def learning_rate(self) -> float:
        return 1e-2

    @property
    def _trains_norms(self) -> bool:
        return self.kind == "houlsby" if self.train_norms is None else self.train_norms

    def _places(self, shape: ModelShape) -> list[tuple[int, Sublayer]]:
        which: tuple[Sublayer, ...] = ("attention", "mlp") if self.kind == "houlsby" else ("mlp",)
        return [(block, sublayer) for block in range(shape.layers) for sublayer in which]

    def _norms(self, shape: ModelShape) -> list[str]:
        if not self._trains_norms:
            return []
        inside = [name for name in shape.parameters if shape.block_of(name) is not None]
        return [n for n in inside if len(shape.parameters[n]) == 1 and ("norm" in n or ".ln_" in n)]

    def stored(self, shape: ModelShape) -> Shapes:
        d, m = shape.hidden, self.bottleneck
        one: Shapes = {
            "down.weight": (m, d),
            "down.bias": (m,),
            "up.weight": (d, m),
            "up.bias": (d,),
        }
        one |= {"norm.weight": (d,), "norm.bias": (d,)} if self.kind == "lin" else {}
        places = self._places(shape)
        inside = {f"{b}.{which}.{name}": s for b, which in places for name, s in one.items()}
        return inside | {name: shape.parameters[name] for name in self._norms(shape)}

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        d, m, tensors = model.shape.hidden, self.bottleneck, {}
        for block, sublayer in self._places(model.shape):
            key = f"{block}.{sublayer}"
            bound = d**-0.5  # Kaiming-uniform with a = √5, torch's Linear
            tensors[f"{key}.down.weight"] = torch.empty(m, d).uniform_(-bound, bound, generator=rng)
            tensors[f"{key}.down.bias"] = torch.zeros(m)
            tensors[f"{key}.up.weight"] = torch.zeros(d, m)
            tensors[f"{key}.up.bias"] = torch.zeros(d)
            if self.kind == "lin":
                tensors[f"{key}.norm.weight"], tensors[f"{key}.norm.bias"] = (
                    torch.ones(d),
                    torch.zeros(d),
                )
        norms = {name: model.gather(name).float().clone() for name in self._norms(model.shape)}
        return State(tensors | norms)

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        t = state.tensors

        def made(key: str) -> Bottleneck:
            norm = (t[f"{key}.norm.weight"], t[f"{key}.norm.bias"]) if self.kind == "lin" else None
            return Bottleneck(
                down=t[f"{key}.down.weight"],
                up=t[f"{key}.up.weight"],
                down_bias=t[f"{key}.down.bias"],
                up_bias=t[f"{key}.up.bias"],
                norm=norm,
                activation=_ACTIVATION[self.kind],
                scale=4.0 if self.kind == "parallel" else 1.0,
                parallel=self.kind == "parallel",
            )

        places = self._places(model.shape)
        return Edits(
            begin=self.begin,
            sublayer={(block, which): made(f"{block}.{which}") for block, which in places},
            weights={name: t[name] for name in self._norms(model.shape)},
        )
