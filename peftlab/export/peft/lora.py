"""LoRA in PEFT's layout: `lora_A` [r, in] and `lora_B` [out, r] a module, DoRA's magnitude [out].

PEFT has one pair a module. Where several roles of one fused matrix are changed, their pairs stand
side by side in it: n times the rank, zeros in the rows of the other roles, and an alpha that keeps
the scaling.

LoRA that begins at the cue is PEFT's aLoRA (Greenewald et al. 2025, arXiv:2504.12397), which begins
at the last place where its invocation tokens stand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import isclose, sqrt
from typing import TYPE_CHECKING, Any

import torch

from peftlab.export.cue import begins_at_cue, invocation
from peftlab.export.peft.folder import PeftFolder
from peftlab.export.peft.modules import Expression, endings, key, own_names, targeted
from peftlab.methods.base import Method, State
from peftlab.methods.lora import LoRA

if TYPE_CHECKING:
    from peftlab.bases.shapes import Linear, Target
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_KNOWN = {
    "r", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora", "use_dora", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
    "init_lora_weights", "bias", "megatron_core", "qalora_group_size", "alora_invocation_tokens",
}  # fmt: skip
_FILED = {  # our name of a tensor -> that of PEFT's file
    "lora_A": "lora_A.weight", "lora_B": "lora_B.weight", "magnitude": "lora_magnitude_vector",
}  # fmt: skip
# These starts leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change its weights.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def write(
    adaptation: Adaptation, model: FrozenLM
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """One pair a module."""
    method = adaptation.method
    tensors: dict[str, torch.Tensor] = {}
    assert isinstance(method, LoRA)
    parts_of: dict[str, list[Target]] = defaultdict(list)
    for target in method.chosen(model.shape):
        parts_of[target.linear.path].append(target)
    most = max(len(parts) for parts in parts_of.values())
    fewer: dict[int, list[str]] = defaultdict(list)
    for path, parts in parts_of.items():
        tensors |= _fused(path, parts, adaptation.state, model, method.dora)
        if len(parts) < most:
            fewer[len(parts)].append(path)
    config = {
        "r": method.rank * most,
        "lora_alpha": _alpha(method, most),
        "lora_dropout": method.dropout,
        "use_rslora": method.rslora,
        "use_dora": method.dora,
        "target_modules": endings(parts_of, model),
        "fan_in_fan_out": model.shape.transposed,
        "bias": "none",
        "rank_pattern": _pattern(fewer, model, lambda n: method.rank * n),
        "alpha_pattern": _pattern(fewer, model, lambda n: _alpha(method, n)),
    }
    if begins_at_cue(adaptation):
        config["alora_invocation_tokens"] = invocation(adaptation, model)
    return config, tensors


def _alpha(method: LoRA, parts: int) -> float:
    """The alpha that gives `parts` times the rank the method's own scaling."""
    alpha = method.alpha * (sqrt(parts) if method.rslora else parts)
    return int(alpha) if alpha == int(alpha) else alpha


def _pattern(by_parts: dict[int, list[str]], model: FrozenLM, value: Any) -> dict[str, Any]:
    return {
        ending.replace(".", r"\."): value(parts)
        for parts, paths in by_parts.items()
        for ending in endings(paths, model)
    }


def _fused(
    path: str, parts: list[Target], state: State, model: FrozenLM, dora: bool
) -> dict[str, torch.Tensor]:
    linear = parts[0].linear
    downs = [state.tensors[f"{part.name}.lora_A"] for part in parts]
    up = torch.zeros(linear.out_features, sum(len(down) for down in downs))
    at = 0
    for part, down in zip(parts, downs, strict=True):
        up[part.row_indices, at : at + len(down)] = state.tensors[f"{part.name}.lora_B"].float()
        at += len(down)
    made = {key(path, "lora_A.weight"): torch.cat(downs), key(path, "lora_B.weight"): up}
    if dora:
        weight = model.gather(f"{path}.weight").float().cpu()
        magnitude = weight.norm(dim=0 if model.shape.transposed else 1)
        for part in parts:
            magnitude[part.row_indices] = state.tensors[f"{part.name}.magnitude"].float()
        made[key(path, "lora_magnitude_vector")] = magnitude
    return made


def read(folder: PeftFolder) -> tuple[Method, State]:
    """LoRA on whole modules; modules of lower rank get pairs of zeros up to the highest."""
    config = folder.config
    folder.understand(_KNOWN)
    if (config.get("bias") or "none") != "none":
        folder.problems.append(
            f"bias={config['bias']!r:.60}: trained biases have no counterpart here"
        )
    start = config.get("init_lora_weights")
    if not isinstance(start, str | bool | None) or start not in _PLAIN_STARTS:
        folder.problems.append(
            f"init_lora_weights={start!r:.60} changes the base's weights; save it with PEFT's "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
        )
    linears = targeted(folder)
    ranks = _each(folder, linears, "rank_pattern", "r", int)
    alphas = _each(folder, linears, "alpha_pattern", "lora_alpha", float)
    for linear in linears:
        for name, size in _sizes(linear, ranks[linear.path], folder.config).items():
            folder.expect(key(linear.path, _FILED[name]), size)
    method = _method(folder, linears, ranks, alphas)
    folder.settle(method)
    tensors: dict[str, torch.Tensor] = {}
    for linear in linears:
        path, rank, alpha = linear.path, ranks[linear.path], alphas[linear.path]
        own = {n: folder.take(key(path, _FILED[n])) for n in _sizes(linear, rank, folder.config)}
        scaling = alpha / (sqrt(rank) if method.rslora else rank)
        tensors |= {f"{path}.{n}": tensor for n, tensor in _at_rank(own, method, scaling).items()}
    return method, State(tensors)


def _method(
    folder: PeftFolder, linears: list[Linear], ranks: dict[str, int], alphas: dict[str, float]
) -> LoRA:
    """The settings that all modules have in common: those of the widest one."""
    config = folder.config
    widest = max(ranks, key=lambda path: ranks[path], default="")
    dropout = config.get("lora_dropout") or 0.0
    if type(dropout) not in (int, float):
        folder.problems.append(f"lora_dropout is {dropout!r:.60}, expected a number")
        dropout = 0.0
    targets, layers = own_names(linears, folder.model.shape)
    return LoRA(
        rank=ranks.get(widest, 1),
        alpha=alphas.get(widest, 1.0),
        dropout=float(dropout),
        targets=targets,
        layers=layers,
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        begin="row" if config.get("alora_invocation_tokens") is None else "cue",
    )


def _each(
    folder: PeftFolder,
    linears: list[Linear],
    patterns: str,
    default: str,
    kind: type[int] | type[float],
) -> dict[str, Any]:
    """Every module's own rank or alpha."""
    usual, given = folder.number(default, kind), folder.config.get(patterns) or {}
    if not isinstance(given, dict):
        folder.problems.append(f"{patterns} is {given!r:.60}, expected an object")
        given = {}
    own = {
        p: folder.positive(f"{patterns} of {p!r:.60}", value, kind) for p, value in given.items()
    }
    meant = {pattern: Expression(folder, rf"(.*\.)?({pattern})") for pattern in own}
    return {
        x.path: kind(next((own[p] for p, it in meant.items() if it.match(x.path)), usual))
        for x in linears
    }


def _sizes(linear: Linear, rank: int, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, tuple[int, ...]] = {
        "lora_A": (rank, linear.in_features),
        "lora_B": (linear.out_features, rank),
    }
    return sizes | ({"magnitude": (linear.out_features,)} if config.get("use_dora") else {})


def _at_rank(own: dict[str, torch.Tensor], method: LoRA, scaling: float) -> dict[str, torch.Tensor]:
    """The same change with the method's rank and scaling."""
    missing = method.rank - len(own["lora_A"])
    functional = torch.nn.functional
    down = functional.pad(own["lora_A"], (0, 0, 0, missing))
    up = functional.pad(own["lora_B"], (0, missing))
    if not isclose(scaling, method.scaling, rel_tol=1e-9):
        up = up * (scaling / method.scaling)
    return own | {"lora_A": down, "lora_B": up}
