"""Tiny random models of many families, and the real one; shared by tests: none may change them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from transformers import PreTrainedModel

from peftlab.frozen import families
from peftlab.frozen.families import REQUIRED
from peftlab.frozen.model import FrozenLM
from tests import real_model

__all__ = ["REQUIRED", "frozen", "tiny"]


def tiny(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny random model of a family; of the family `real` the whole real one."""
    if family == real_model.REAL:
        return real_model.plain()
    return families.tiny(family, seed, **changes)


@lru_cache(maxsize=8)
def frozen(family: str) -> FrozenLM:
    """A tiny frozen model."""
    return FrozenLM(tiny(family), name=family)
