"""Names that cost nothing until they are used: torch, and those of a package's own files.

torch takes seconds to import, and half of the commands never need it. Files that those commands
import take it from here; `sys.modules` holds nothing but torch itself, once somebody uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["names_of", "torch"]


class _Lazy:
    """Stands for a module until one of its attributes is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)  # asked once
        return value


if TYPE_CHECKING:
    import torch
else:
    torch = _Lazy("torch")


def names_of(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`, which imports a file when one of its names is asked for.

    Args:
        homes: the public names, each with the file of the package that holds it.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
