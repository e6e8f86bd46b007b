"""LoRA: W x + (alpha / r) B A x.  Hu et al. 2021, arXiv:2106.09685, section 4.1.

Options of the field: rsLoRA scales by alpha / √r (Kalajdzievski 2023, arXiv:2312.03732); DoRA
rescales the rows of W + BA to trained lengths (Liu et al. 2024, arXiv:2402.09353, section 4, with
the norm detached as in its section 4.3); LoRA+ trains B at a higher rate (Hayou et al. 2024,
arXiv:2402.12354).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from peftlab.bases.scale import Scale
from peftlab.bases.shapes import ModelShape, Target
from peftlab.edits import Dropout, Edits, LinearEdit
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Shapes, State, register
from peftlab.options import Formerly

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task


@register("lora")
@dataclass(frozen=True, kw_only=True)
class LoRA(BeginningMethod):
    """Low-rank change of chosen projections. Starts equal to the frozen model, because B is zero.

    Settings:
        rank, alpha, dropout: of the paper; dropout is on the input of A.
        targets: roles (q, k, v, o, gate, up, down), module names (c_attn) or all-linear. Where q, k
            and v are one matrix, a role is its own rows of it.
        layers: the blocks that are changed; all where empty.
        initialisation: of A, kaiming (the paper's code, √5) or gaussian (its text).
        rslora, dora: the options above. plus: LoRA+'s ratio of B's rate to A's.
    """

    sites: ClassVar = ("linear",)
    starts_as_base: ClassVar = True
    size: ClassVar = "rank"

    rank: Annotated[int, Ge(1)] = 8
    alpha: Annotated[float, Gt(0)] = 16.0
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    targets: Annotated[tuple[str, ...], Formerly(("q", "v"))] = ("all-linear",)
    layers: tuple[int, ...] = ()
    initialisation: Literal["kaiming", "gaussian"] = "kaiming"
    rslora: bool = False
    dora: bool = False
    plus: Annotated[float, Gt(0)] = 1.0

    @property
    def learning_rate(self) -> float:
        return 7e-3

    @property
    def scaling(self) -> float:
        """What multiplies B A."""
        return self.alpha / (sqrt(self.rank) if self.rslora else self.rank)

    def chosen(self, shape: ModelShape) -> list[Target]:
        """The linears, or parts of linears, that are changed."""
        return shape.targets(self.targets, shape.blocks(self.layers) if self.layers else None)

    def check(self, shape: ModelShape) -> None:
        for target in self.chosen(shape):
            most = min(target.linear.in_features, target.out_features)
            if self.rank > most:
                raise InputError(
                    f"lora: rank={self.rank} is above the {most} of {target.name} "
                    f"({target.out_features} × {target.linear.in_features})"
                )

    def stored(self, shape: ModelShape) -> Shapes:
        sizes: Shapes = {}
        for target in self.chosen(shape):
            sizes[f"{target.name}.lora_A"] = self.rank, target.linear.in_features
            sizes[f"{target.name}.lora_B"] = target.out_features, self.rank
            if self.dora:
                sizes[f"{target.name}.magnitude"] = (target.out_features,)
        return sizes

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        tensors = {}
        for target in self.chosen(model.shape):
            width = target.linear.in_features
            if self.initialisation == "kaiming":  # uniform, a = √5, so the bound is 1 / √width
                down = torch.empty(self.rank, width).uniform_(
                    -(width**-0.5), width**-0.5, generator=rng
                )
            else:
                down = torch.randn(self.rank, width, generator=rng) / self.rank
            tensors[f"{target.name}.lora_A"] = down
            tensors[f"{target.name}.lora_B"] = torch.zeros(target.out_features, self.rank)
            if self.dora:
                tensors[f"{target.name}.magnitude"] = _rows_of(model, target).norm(dim=1)
        return State(tensors)

    def groups(self, state: State, rate: float, scale: Scale) -> list[dict[str, Any]]:
        up = [name for name in state.tensors if name.endswith(".lora_B")]
        rest = [name for name in state.tensors if not name.endswith(".lora_B")]
        return [{"params": rest, "lr": rate}, {"params": up, "lr": rate * self.plus}]

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        by_linear: dict[str, list[Target]] = defaultdict(list)
        for target in self.chosen(model.shape):
            by_linear[target.linear.path].append(target)
        dropout = Dropout(self.dropout, seed) if self.dropout and seed is not None else None
        linear = {
            path: self._edit(parts, state, model, dropout) for path, parts in by_linear.items()
        }
        return Edits(linear=linear, begin=self.begin)

    def _edit(
        self, parts: list[Target], state: State, model: FrozenLM, dropout: Dropout | None
    ) -> LinearEdit:
        """One edit of a linear, however many of its parts change: their ranks side by side."""
        downs = [state.tensors[f"{part.name}.lora_A"] for part in parts]
        ups = [self.scaling * state.tensors[f"{part.name}.lora_B"] for part in parts]
        scale = None
        if self.dora:
            scale = torch.ones(parts[0].linear.out_features, device=downs[0].device)
            for part, down, up in zip(parts, downs, ups, strict=True):
                length = (_rows_of(model, part).to(up) + up @ down).norm(dim=1).detach()
                rows = torch.tensor(part.row_indices, device=scale.device)
                scale = scale.index_copy(0, rows, state.tensors[f"{part.name}.magnitude"] / length)
        if parts[0].rows is None:
            return LinearEdit(down=downs[0], up=ups[0], out_scale=scale, dropout=dropout)
        placed = [_place(up, part) for up, part in zip(ups, parts, strict=True)]
        return LinearEdit(
            down=torch.cat(downs), up=torch.cat(placed, 1), out_scale=scale, dropout=dropout
        )


def _place(up: torch.Tensor, part: Target) -> torch.Tensor:
    """[rows of the part, r] -> [out, r], zero elsewhere."""
    whole = up.new_zeros(part.linear.out_features, up.shape[1])
    return whole.index_copy(0, torch.tensor(part.row_indices, device=up.device), up)


def _rows_of(model: FrozenLM, target: Target) -> torch.Tensor:
    """The frozen weight's targeted rows [out, in]."""
    weight = model.gather(f"{target.linear.path}.weight").float()
    weight = weight.T if model.shape.transposed else weight
    return weight[torch.tensor(target.row_indices, device=weight.device)]
