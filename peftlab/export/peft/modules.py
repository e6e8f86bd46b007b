"""PEFT's names of modules: `target_modules` to linears and back.

PEFT matches a list's entries as whole names or endings (`c_proj` is two modules of a GPT-2 block),
a string as a regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from peftlab.errors import InputError
from peftlab.export.peft.found import PREFIX, Found

if TYPE_CHECKING:
    from peftlab.bases.shapes import Linear, ModelShape
    from peftlab.frozen.model import FrozenLM

_LAYER = re.compile(r".*?\.[^.]*\.(?P<index>\d+)\.")


def endings(paths: Iterable[str], model: FrozenLM) -> list[str]:
    """The shortest endings that match these modules and no others of the model."""
    wanted = set(paths)
    others = [name for name, _ in model.model.named_modules() if name not in wanted]
    found = {_shortest(path, others) for path in wanted}
    return sorted(found)


def _shortest(path: str, others: Sequence[str]) -> str:
    parts = path.split(".")
    for start in range(len(parts) - 1, 0, -1):
        ending = ".".join(parts[start:])
        if not any(name == ending or name.endswith(f".{ending}") for name in others):
            return ending
    return path


def matches(pattern: Any, path: str) -> bool:
    """Whether PEFT would say that a module is meant."""
    if isinstance(pattern, str):
        return re.fullmatch(pattern, path) is not None
    return any(path == ending or path.endswith(f".{ending}") for ending in pattern)


def targeted(found: Found) -> list[Linear]:
    """The linears that the configuration targets; what is targeted besides them is noted."""
    by_path = {linear.path: linear for linear in found.model.shape.linears}
    pattern = found.config.get("target_modules")
    if not pattern or not isinstance(pattern, (str, list)):
        found.problems.append(f"target_modules is {pattern!r}, expected names or an expression")
        return []
    if pattern == "all-linear":
        names = list(by_path)
    else:
        modules = (name for name, _ in found.model.model.named_modules())
        names = [n for n in modules if matches(pattern, n) and _in_layers(found.config, n)]
    excluded = found.config.get("exclude_modules") or []
    names = [name for name in names if not matches(excluded, name)]
    if not names:
        found.problems.append(f"target_modules {pattern} match no module of this base")
    for name in names:
        if name not in by_path:
            found.problems.append(f"{name} is targeted, which is no linear of a block")
    return [by_path[name] for name in names if name in by_path]


def _in_layers(config: Any, name: str) -> bool:
    wanted = config.get("layers_to_transform")
    if wanted is None or wanted == [] or isinstance(config.get("target_modules"), str):
        return True
    patterns = config.get("layers_pattern") or []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if match := re.match(rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\.", name):
            return int(match["index"]) in _as_list(wanted)
    match = None if patterns else _LAYER.match(name)
    return match is not None and int(match["index"]) in _as_list(wanted)


def _as_list(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else value


def own_names(
    linears: Sequence[Linear], shape: ModelShape, by_layer: bool = True
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """`targets` and `layers` of our own that mean exactly these linears.

    A role where it has a linear of its own (`q`), else the module's name (`c_attn`), else paths.
    """
    wanted = {linear.path for linear in linears}
    blocks = sorted({linear.block for linear in linears})
    layers = tuple(blocks) if by_layer and len(blocks) < shape.layers else ()
    roles = {next(iter(x.parts)) if len(x.parts) == 1 else x.leaf for x in linears}
    for names in (roles, {x.leaf for x in linears}):
        try:
            targets = shape.targets(sorted(names), layers or None)
        except InputError:
            continue
        if {t.linear.path for t in targets if t.rows is None} == wanted and len(targets) == len(
            wanted
        ):
            return tuple(sorted(names)), layers
    return tuple(linear.path for linear in linears), ()


def key(path: str, name: str) -> str:
    """The name of a module's tensor in an adapter's file."""
    return f"{PREFIX}{path}.{name}"
