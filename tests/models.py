"""Tiny random models of many families, shared by tests: no test may change them."""

from __future__ import annotations

from functools import lru_cache

from peftlab.frozen.families import REQUIRED, tiny
from peftlab.frozen.model import FrozenLM

__all__ = ["REQUIRED", "frozen", "tiny"]


@lru_cache(maxsize=8)
def frozen(family: str) -> FrozenLM:
    """A tiny frozen model."""
    return FrozenLM(tiny(family), name=family)
