"""Several changes of weights as one: weighted sums, TIES and DARE, whatever methods made them.

Sums of changes: Ilharco et al. 2023, arXiv:2212.04089, section 2. TIES: Yadav et al. 2023,
arXiv:2306.01708, section 3. DARE: Yu et al. 2024, arXiv:2311.03099, section 3.2. They are taken
tensor by tensor, as PEFT's `add_weighted_adapter` takes them module by module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from peftlab.edits import Edits, LinearEdit
from peftlab.errors import InputError
from peftlab.frozen.weight_changes import (
    as_edits,
    base_value,
    changes,
    changes_weights_alone,
    is_low_rank,
    paths_of,
)
from peftlab.lazy import torch
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.base import State, derived
from peftlab.methods.composed import split_state
from peftlab.methods.lora import LoRA
from peftlab.methods.made_of import MadeOf

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Template
    from peftlab.tasks.example import Begin

How = Literal["linear", "ties", "dare_linear", "dare_ties", "peft_linear"]
_THINS = ("ties", "dare_linear", "dare_ties")


@derived("combination")
@dataclass(frozen=True, kw_only=True)
class Combination(MadeOf):
    """Adaptations that change weights, combined; it trains nothing.

    A sum of plain LoRA stays one, of their ranks together; everything else replaces weights.

    Settings:
        of: folders of adaptations or runs. weights: of each, negative ones take a change away.
        how: linear: the weighted sum of the changes; ties: only the largest numbers of each change
            are kept, each place takes one sign, and the mean is of those that have it; dare_linear
            and dare_ties keep random numbers, scaled up; peft_linear: PEFT's `linear`, which adds
            LoRA's factors and so has products of one's A with another's B.
        density: the share of numbers that ties and dare keep. seed: of those that dare keeps.
        parts: the methods of what is combined, as the folders have them.
    """

    sites: ClassVar = ("linear", "weights")

    how: How = "linear"
    density: Annotated[float | None, Gt(0), Le(1)] = None
    seed: Annotated[int, Ge(0)] = 0

    def _check_settings(self) -> None:
        if (self.density is None) == (self.how in _THINS):
            kept = "keeps a share of each change: give density=0.2, or another"
            raise InputError(
                f"combination: how={self.how} "
                f"{kept if self.density is None else 'keeps all: leave density out'}"
            )

    @property
    def begins_at_cue(self) -> bool:
        return any(part.begins_at_cue for part in self.parts)

    @property
    def begin(self) -> Begin:
        """Where all of them begin."""
        return "cue" if self.begins_at_cue else "row"

    def state_of(self, adaptations: Sequence[Adaptation], model: FrozenLM) -> State:
        """The state of these parts.

        Raises:
            InputError: one changes something else than weights, or brings words; or they begin at
                different places.
        """
        for name, one in zip(self.of, adaptations, strict=True):
            edits = one.edits(model)
            words = one.row_template
            if not changes_weights_alone(edits):
                raise InputError(
                    f"{name}: {one.method.name} changes no weights, and weights are combined; "
                    "`peftlab convert --to lora` makes a LoRA of it"
                )
            if words.beginning("row") != one.template.beginning("row"):
                raise InputError(
                    f"{name}: {one.method.label} brings words of its own, which cannot be combined"
                )
            if edits.begin != self.begin:
                raise InputError(
                    f"{name} begins at the {edits.begin}, and others at the {self.begin}: changes "
                    "that are combined begin at one place"
                )
        return super().state_of(adaptations, model)

    def template(self, template: Template, state: State) -> Template:
        return template.beginning(self.begin)

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        parts = [part.edits(own, model) for part, own in split_state(self.parts, state)]
        if self.how == "peft_linear":
            return Edits(linear=self._factors_added(parts), begin=self.begin)
        if self.how == "linear" and all(map(is_low_rank, parts)):
            return Edits(linear=self._side_by_side(parts), begin=self.begin)
        made = as_edits(model, self._summed(parts, model))
        return Edits(linear=made.linear, weights=made.weights, begin=self.begin)

    def _side_by_side(self, parts: Sequence[Edits]) -> dict[str, LinearEdit]:
        """The exact sum of low-rank changes, all ranks of a linear together."""
        linear = {}
        for path in sorted(set().union(*(part.linear for part in parts))):
            pairs = zip(self.weights, parts, strict=True)
            own = [(w, part.linear[path]) for w, part in pairs if path in part.linear]
            factors = [
                (e.down, w * e.up) for w, e in own if e.down is not None and e.up is not None
            ]
            biases = [w * edit.bias for w, edit in own if edit.bias is not None]
            linear[path] = LinearEdit(
                down=torch.cat([down for down, _ in factors]) if factors else None,
                up=torch.cat([up for _, up in factors], 1) if factors else None,
                bias=torch.stack(biases).sum(0) if biases else None,
            )
        return linear

    def _factors_added(self, parts: Sequence[Edits]) -> dict[str, LinearEdit]:
        """A and B added apart, each under the root of its weight and scaling, as PEFT does."""
        plain = [m for m in self.parts if isinstance(m, LoRA) and not m.dora]
        alike = {tuple((path, e.down.shape) for path, e in sorted(part.linear.items())
                       if e.down is not None) for part in parts}  # fmt: skip
        if len(plain) < len(parts) or len(alike) > 1:
            raise InputError(
                "combination: how=peft_linear adds the factors of plain lora of one rank and the "
                "same targets; how=linear adds any changes of weights"
            )
        linear = {}
        for path in parts[0].linear:
            down: Any = 0.0
            up: Any = 0.0
            for weight, method, part in zip(self.weights, plain, parts, strict=True):
                edit, root = part.linear[path], sqrt(abs(weight) * method.scaling)
                assert edit.down is not None and edit.up is not None
                down = down + (root if weight >= 0 else -root) * edit.down
                up = up + root / method.scaling * edit.up
            linear[path] = LinearEdit(down=down, up=up)
        return linear

    def _summed(self, parts: Sequence[Edits], model: FrozenLM) -> dict[str, torch.Tensor]:
        """Every changed parameter, a module at a time: each one's change is as large as it."""
        weights = {}
        for path in sorted(set().union(*map(paths_of, parts))):
            found: dict[str, list[tuple[int, torch.Tensor]]] = {}
            for number, part in enumerate(parts):
                for name, change in changes(model, part, path):
                    found.setdefault(name, []).append((number, change))
            for name, own in found.items():
                change = self._combined(name, own)
                weights[name] = base_value(model, name, change) + change
        return weights

    def _combined(self, name: str, own: Sequence[tuple[int, torch.Tensor]]) -> torch.Tensor:
        """A parameter's change of those changes of it that there are, by number of their part."""
        kept = torch.stack([self._thinned(change, number, name) for number, change in own])
        factors = kept.new_tensor([self.weights[number] for number, _ in own])
        weighed = kept * factors.view(-1, *[1] * (kept.ndim - 1))
        if not self.how.endswith("ties"):
            return weighed.sum(0)
        sign = torch.where(kept.sum(0) >= 0, 1.0, -1.0)
        agree = kept.sign() == sign
        return (weighed * agree).sum(0) / agree.sum(0).clamp(min=1)

    def _thinned(self, change: torch.Tensor, number: int, name: str) -> torch.Tensor:
        """What is kept of a part's change."""
        if self.density in (None, 1):
            return change
        assert self.density is not None
        if self.how == "ties":
            places = change.abs().flatten().topk(int(self.density * change.numel())).indices
            mask = torch.zeros_like(change).flatten()
            return change * mask.index_fill_(0, places, 1).view_as(change)
        return change * self.drawn(change.shape, number, name).to(change) / self.density

    def drawn(self, size: torch.Size, number: int, name: str) -> torch.Tensor:
        """What DARE keeps of a part's change of a parameter: ones and zeros.

        They hang on seed, part and parameter alone, on any device.
        """
        told = hashlib.sha256(f"{self.seed} {number} {name}".encode()).digest()
        rng = torch.Generator().manual_seed(int.from_bytes(told[:7]))
        return (torch.rand(size, generator=rng) < (self.density or 1)).float()
