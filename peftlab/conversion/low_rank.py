"""The best low-rank fit of a change of weights, by what it does to the inputs that occur.

Of all products BA of a rank, ‖(Δ − BA) C^½‖ with C the inputs' second moments is least for
B A = U Uᵀ Δ, where U are the leading eigenvectors of Δ C Δᵀ: the left singular vectors of Δ C^½
(Eckart & Young 1936).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from peftlab.bases.shapes import Target
from peftlab.edits import Edits
from peftlab.frozen.batch import Batch
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.weight_changes import changes, paths_of
from peftlab.methods.base import State
from peftlab.methods.lora import LoRA
from peftlab.token_limits import token_chunks

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

_FLOOR = 1e-4  # of the mean moment, for directions that no input has: they count, but little
_LEAST = 1e-6  # of the largest direction: a smaller one is rounding
_MEMORY = 1 << 30  # bytes of moments at once


@dataclass(frozen=True)
class LeftOut:
    """What a LoRA leaves out of a change of weights, as shares of the change's squared norm.

    Attributes:
        beside: of parameters that it does not reach: biases, norms, embeddings, head, others.
        within: of those that it changes, beyond its rank.
    """

    beside: float
    within: float


class Fit(NamedTuple):
    """A LoRA's state, and what it leaves out."""

    state: State
    left_out: LeftOut


@torch.no_grad()
def fit(model: FrozenLM, edits: Edits, method: LoRA, start: State, batches: Sequence[Batch]) -> Fit:
    """A LoRA that is as close to a change of weights as its rank allows.

    Args:
        start: of the method; what the change does not fill of it stays.
        batches: under these edits, whose inputs weigh.
    """
    sizes = {name: float(change.square().sum()) for name, change in _changes(model, edits)}
    total = sum(sizes.values()) or 1.0
    targets = [one for one in method.chosen(model.shape) if _name(one) in sizes]
    tensors, seen, missed = dict(start.tensors), 0.0, 0.0
    for some, moments in _moments(model, targets, batches):
        for target in some:
            change = _rows(
                model, target, dict(changes(model, edits, target.linear.path))[_name(target)]
            )
            own = _rows(model, target, model.gather(_name(target)).float())
            factors = best(change, moments[target.linear.path], method.rank, _rounding(own))
            tensors |= _filled(start, target, method, *(factor.cpu() for factor in factors))
            product = factors[1] @ factors[0]
            if method.dora:
                tensors[f"{target.name}.magnitude"] = (own + product).norm(dim=1).cpu()
            seen += float(change.square().sum())
            missed += float((change - product).square().sum())
    left_out = LeftOut(max(0.0, 1 - seen / total), missed / total)
    return Fit(State(tensors, start.text), left_out)


def _changes(model: FrozenLM, edits: Edits) -> Iterator[tuple[str, torch.Tensor]]:
    """What is added to each parameter, by its name, a module at a time."""
    for path in sorted(paths_of(edits)):
        yield from changes(model, edits, path)


def _rounding(weight: torch.Tensor) -> float:
    """How long a direction of a difference of weights may be that is rounding alone."""
    return float(4 * torch.finfo(torch.float32).eps * weight.norm() / min(weight.shape) ** 0.5)


def best(
    change: torch.Tensor, moments: torch.Tensor, rank: int, least: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(A [≤ r, in], B [out, ≤ r]) whose product is closest to a change under moments [in, in].

    Columns of B have the length 1 and are orthogonal.

    Args:
        least: rows of A that are no longer are left out.
    """
    exact, inputs = change.double(), moments.double()
    floor = _FLOOR * float(inputs.diagonal().mean()) or 1.0
    weighed = exact @ torch.linalg.cholesky(inputs + floor * torch.eye(len(inputs)).to(inputs))
    if len(weighed) <= len(inputs):
        up = torch.linalg.eigh(weighed @ weighed.T).eigenvectors[:, -rank:].flip(1)
    else:  # the smaller of the two products
        vectors = torch.linalg.eigh(weighed.T @ weighed).eigenvectors[:, -rank:].flip(1)
        up = torch.linalg.qr(weighed @ vectors).Q
    down = up.T @ exact
    lengths = down.norm(dim=1)
    kept = lengths > max(least, _LEAST * float(lengths.max()))
    return down[kept].float(), up[:, kept].float()


def _filled(
    start: State, target: Target, method: LoRA, down: torch.Tensor, up: torch.Tensor
) -> dict[str, torch.Tensor]:
    """A target's factors, rows of A as long as they were at the start, so that rates fit.

    Ranks without a direction keep their A and a B of zero, from which they can learn.
    """
    names = f"{target.name}.lora_A", f"{target.name}.lora_B"
    a, b = start.tensors[names[0]].clone(), torch.zeros_like(start.tensors[names[1]])
    count, lengths = len(down), down.norm(dim=1)
    of_start = a[:count].norm(dim=1)
    a[:count] = down * (of_start / lengths).unsqueeze(1)
    b[:, :count] = up * (lengths / of_start) / method.scaling
    return dict(zip(names, (a, b), strict=True))


def _name(target: Target) -> str:
    return f"{target.linear.path}.weight"


def _rows(model: FrozenLM, target: Target, change: torch.Tensor) -> torch.Tensor:
    """A target's rows of a change of its whole linear, [out, in]."""
    change = change.T if model.shape.transposed else change
    return change[torch.tensor(target.row_indices, device=change.device)]


def _moments(
    model: FrozenLM, targets: Sequence[Target], batches: Sequence[Batch]
) -> Iterator[tuple[list[Target], dict[str, torch.Tensor]]]:
    """Some targets and, by their linears, the mean of x xᵀ over inputs, [in, in]; then others."""
    tokens = sum(batch.tokens for batch in batches)
    sizes = [4 * target.linear.in_features**2 for target in targets]
    for some in token_chunks(targets, sizes, _MEMORY):
        sums: dict[str, torch.Tensor] = {}
        hooks = [
            model.model.get_submodule(path).register_forward_pre_hook(_adding(sums, path))
            for path in {target.linear.path for target in some}
        ]
        try:
            for batch in batches:  # fast forms read several linears' input past their modules
                model(batch, ForwardOptions(fast=False))
        finally:
            for hook in hooks:
                hook.remove()
        # What no token reaches (an expert that none was sent to) is fitted without weights.
        yield (
            some,
            {
                target.linear.path: sums[target.linear.path] / tokens
                if target.linear.path in sums
                else torch.eye(target.linear.in_features, device=model.device)
                for target in some
            },
        )


def _adding(sums: dict[str, torch.Tensor], path: str) -> Callable[..., None]:
    def add(_: object, given: tuple[Any, ...]) -> None:
        x = given[0].float().reshape(-1, given[0].shape[-1])
        sums[path] = sums[path].addmm_(x.T, x) if path in sums else x.T @ x

    return add
