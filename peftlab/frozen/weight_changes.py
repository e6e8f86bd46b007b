"""What edits come to as parameters: LoRA, DoRA, IA3, BitFit and replaced weights alike.

From the linear site's formula, y = out_scale ⊙ (W(in_scale ⊙ x) + up·down·x) + b + bias, the
changed weight is out_scale ⊙ (W ⊙ in_scale + up·down) by rows and columns, the changed bias
b + bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from peftlab.edits import Edits, LinearEdit
from peftlab.lazy import torch

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM


def changes_weights_alone(edits: Edits) -> bool:
    """Whether edits change weights, biases or norms, and nothing else beside the text."""
    others = edits.embeddings is not None or edits.attention or edits.sublayer
    return not others and bool(edits.linear or edits.weights)


def is_low_rank(edits: Edits) -> bool:
    """Whether all changes of linears are products of two factors, or biases."""
    scaled = any(e.in_scale is not None or e.out_scale is not None for e in edits.linear.values())
    return not edits.weights and not scaled


def changed_weights(model: FrozenLM, edits: Edits) -> dict[str, torch.Tensor]:
    """The changed parameters by name; a bias that the base lacks is named like one it has."""
    weights = {name: tensor.float() for name, tensor in edits.weights.items()}
    for path, edit in edits.linear.items():
        name = f"{path}.weight"
        weight = weights[name] if name in weights else model.gather(name).float()
        weights[name] = _weight(weight, edit, model.shape.transposed)
        if edit.bias is not None:
            bias = f"{path}.bias"
            weights[bias] = weights.get(bias, base_value(model, bias, edit.bias)) + edit.bias
    return weights


def paths_of(edits: Edits) -> set[str]:
    """The modules whose parameters change."""
    return {name.rpartition(".")[0] for name in edits.weights} | edits.linear.keys()


def changes(model: FrozenLM, edits: Edits, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    """What is added to each parameter of a module, by its name."""
    weights = {n: w for n, w in edits.weights.items() if n.rpartition(".")[0] == path}
    linear = {path: edits.linear[path]} if path in edits.linear else {}
    for name, tensor in changed_weights(model, Edits(weights=weights, linear=linear)).items():
        yield name, tensor - base_value(model, name, tensor)


def base_value(model: FrozenLM, name: str, like: torch.Tensor) -> torch.Tensor:
    """A parameter of the base's; zero where it lacks that bias."""
    has = name in model.shape.parameters
    return model.gather(name).float() if has else torch.zeros_like(like)


def as_edits(model: FrozenLM, weights: Mapping[str, torch.Tensor]) -> Edits:
    """Edits that replace parameters; a bias that the base lacks is added by its linear."""
    own = {n: w for n, w in weights.items() if n in model.shape.parameters}
    new = {n.removesuffix(".bias"): w for n, w in weights.items() if n not in own}
    return Edits(weights=own, linear={path: LinearEdit(bias=bias) for path, bias in new.items()})


def _weight(weight: torch.Tensor, edit: LinearEdit, transposed: bool) -> torch.Tensor:
    out = weight.T if transposed else weight  # [out, in]
    if edit.in_scale is not None:
        out = out * edit.in_scale
    if edit.down is not None and edit.up is not None:
        out = out + edit.up @ edit.down
    if edit.out_scale is not None:
        out = out * edit.out_scale.unsqueeze(1)
    return (out.T if transposed else out).contiguous()
