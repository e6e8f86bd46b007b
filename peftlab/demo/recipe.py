"""The recipe of the bundled demo model (peftlab.demo.pretrain)."""

from __future__ import annotations

from dataclasses import dataclass

CONTEXT = 512
"""Positions that the model has."""
END = "<|end|>"
"""The end-of-sequence token, which is the padding token too."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result; the defaults are the bundled model's, but for `bf16`
    (with which it was made), as most CPUs are slow at it."""

    steps: int = 3600
    seed: int = 0
    vocabulary: int = 1800
    vocabulary_documents: int = 20_000
    layers: int = 4
    width: int = 192
    heads: int = 6
    tokens_per_step: int = 4096
    simple_share: float = 0.12
    open_weight: float = 0.1
    muon_rate: float = 0.02
    adamw_rate: float = 3e-3
    warmup: int = 100
    decay_share: float = 0.5
    weight_decay: float = 0.01
    bf16: bool = False
