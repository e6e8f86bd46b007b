"""A module that is imported at its first use, although `import x` stands at the top of files.

`lazy_loader` and `importlib.util.LazyLoader` cannot do this for a name in `sys.modules`: the import
statement itself reads `__spec__` there, which already counts as use.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import RLock
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands in for a module until one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_real(self.__name__), name)


_lock = RLock()


def _real(name: str) -> ModuleType:
    with _lock:
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]
        return importlib.import_module(name)


class _Loaded(Loader):
    """Gives back a submodule that came along when its package was really imported."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Submodules(MetaPathFinder):
    """`import torch.nn` on the stand-in imports torch, and must not then import torch.nn again."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        module = sys.modules.get(fullname)
        if module is None or not fullname.startswith(f"{self._package}."):
            return None
        return ModuleSpec(fullname, _Loaded(module))


def import_later(name: str) -> None:
    """Let `import name` succeed at once and do its work at the first use of an attribute.

    Nothing happens where the module is imported already, or not installed.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        return
    stand_in = _Later(name)
    stand_in.__spec__ = spec
    sys.modules[name] = stand_in
    sys.meta_path.insert(0, _Submodules(name))
