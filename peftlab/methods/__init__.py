"""The ways of adapting a frozen model: one small file each, entered into one registry."""

from peftlab.methods import (  # noqa: F401 - importing a method registers it
    bitfit,
    bottleneck,
    discrete_search,
    full,
    hard_prompt,
    ia3,
    intrinsic,
    last_k,
    layers,
    llama_adapter,
    lora,
    p_tuning,
    prefix_tuning,
    prompt_tuning,
)
from peftlab.methods.base import REGISTRY, Count, Method, Shapes, State, register
from peftlab.methods.composed import Composed
from peftlab.methods.parse import build, parse, parse_one, specs

__all__ = [
    "REGISTRY",
    "Composed",
    "Count",
    "Method",
    "Shapes",
    "State",
    "build",
    "parse",
    "parse_one",
    "register",
    "specs",
]
