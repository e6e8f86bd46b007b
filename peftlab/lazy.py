"""torch under a name that costs nothing until it is used: `from peftlab.lazy import torch`.

torch takes seconds to import, and half of the commands never need it. Files that those commands
import take it from here; `sys.modules` holds nothing but torch itself, once somebody uses it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["torch"]


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
