"""The ways of adapting a frozen model: one small file each, entered into one registry.

A new file here that holds a `@register`ed class is a new method, everywhere; no list names it.
"""

from importlib import import_module
from pkgutil import iter_modules

from peftlab.methods.base import REGISTRY, Count, Method, Shapes, State, register
from peftlab.methods.composed import Composed
from peftlab.methods.parse import build, method_of, parse, parse_one, specs

for _module in iter_modules(__path__):  # importing a method registers it; none imports torch
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "REGISTRY",
    "Composed",
    "Count",
    "Method",
    "Shapes",
    "State",
    "build",
    "method_of",
    "parse",
    "parse_one",
    "register",
    "specs",
]
