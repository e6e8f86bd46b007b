"""IA3 in PEFT's layout: `ia3_l` a module, [out, 1] on outputs and [1, in] on inputs.

Where k and v are rows of one fused matrix, its vector is one at the other rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftlab.errors import InputError
from peftlab.export.peft.folder import PeftFolder
from peftlab.export.peft.modules import Patterns, endings, key, own_names, targeted
from peftlab.methods.base import Method, State
from peftlab.methods.ia3 import IA3

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_KNOWN = {
    "target_modules", "exclude_modules", "feedforward_modules", "fan_in_fan_out",
    "init_ia3_weights",
}  # fmt: skip


def write(
    adaptation: Adaptation, model: FrozenLM
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The scales that the edits have, module by module."""
    tensors, inputs = {}, []
    for path, edit in adaptation.edits(model).linear.items():
        if edit.in_scale is not None and edit.out_scale is not None:
            raise InputError(f"PEFT scales a module's input or its output; {path} has both scaled")
        if edit.in_scale is not None:
            inputs.append(path)
            tensors[key(path, "ia3_l")] = edit.in_scale.unsqueeze(0)
        if edit.out_scale is not None:
            tensors[key(path, "ia3_l")] = edit.out_scale.unsqueeze(1)
    config = {
        "target_modules": endings(adaptation.edits(model).linear, model),
        "feedforward_modules": endings(inputs, model),
        "fan_in_fan_out": model.shape.transposed,
    }
    return config, tensors


def read(folder: PeftFolder) -> tuple[Method, State]:
    """IA3 on whole modules."""
    folder.understand(_KNOWN)
    shape = folder.model.shape
    linears, meant = targeted(folder), Patterns(folder, "feedforward_modules")
    inputs = [linear for linear in linears if meant.match(linear.path)]
    outputs = [linear for linear in linears if linear not in inputs]
    for x in linears:
        folder.expect(
            key(x.path, "ia3_l"), (1, x.in_features) if x in inputs else (x.out_features, 1)
        )
    folder.settle()
    tensors = {
        f"{x.path}.{'in' if x in inputs else 'out'}": folder.take(key(x.path, "ia3_l")).flatten()
        for x in linears
    }
    targets, _ = own_names(outputs, shape, by_layer=False) if outputs else ((), ())
    scaled, _ = own_names(inputs, shape, by_layer=False) if inputs else ((), ())
    return IA3(targets=targets, feedforward=scaled), State(tensors)
