"""How one adaptation is trained. The same settings serve every method; only rates differ."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil
from typing import Literal

from peftlab.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the training loop.

    Attributes:
        steps: optimiser steps; where one of `epochs`, `tokens` and `seconds` is given, it replaces
            them, see `budget`.
        batch_size: rows of a micro-batch; a step accumulates `accumulation` of them.
        learning_rate: peak rate; None takes the method's own.
        warmup: share of the budget over which the rate rises.
        clip: largest norm of all gradients together; 0 turns clipping off.
        label_smoothing: in training only.
        precision: auto takes bf16 autocast only where it pays on this device.
        max_length: tokens of a row, prompt included; None takes the model's context.
        evaluate_every: steps between validation losses; 0 evaluates at the end alone. Of tokens it
            is the steps of usual size, of seconds there are ten validations.
        patience: evaluations without improvement before training stops early; 0 never stops.
        validation_limit: rows of the validation split that steer training; None takes all.
        checkpoint_seconds: time between checkpoints of the run's folder.
        recompute: keep no activations inside blocks, compute them again in backward.
        offload: keep the activations that backward needs in the CPU's memory meanwhile.
        share: pack what rows have in common at their start once.
        fast: allow what gives the same numbers sooner (kept trunk activations, the head in pieces,
            the last block at target tokens only); False shows the difference.
        trunk_memory, trunk_disk: most bytes of kept trunk activations, see `trunk`.
    """

    steps: int = 300
    epochs: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float | None = None
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    weight_decay: float = 0.0
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: float = 0.06
    clip: float = 1.0
    label_smoothing: float = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    max_length: int | None = None
    evaluate_every: int = 50
    patience: int = 0
    validation_limit: int | None = None
    checkpoint_seconds: float = 30.0
    recompute: bool = False
    offload: bool = False
    share: bool = True
    fast: bool = True
    trunk_memory: int = 2 << 30
    trunk_disk: int = 8 << 30
    seed: int = 0

    def __post_init__(self) -> None:
        given = [n for n in ("epochs", "tokens", "seconds") if getattr(self, n) is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} are given; one budget was expected")
        for name in given:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; more than 0 was expected")
        for name in ("batch_size", "accumulation", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; at least 1 was expected")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and value < 0 and item.name != "seed":
                raise InputError(f"{item.name} is {value}; it cannot be negative")

    @property
    def rows_a_step(self) -> int:
        """Rows of the whole accumulated batch."""
        return self.batch_size * self.accumulation

    def total_steps(self, rows: int) -> int:
        """Optimiser steps over a training split of so many rows."""
        if self.epochs is None:
            return self.steps
        return max(1, ceil(self.epochs * rows / self.rows_a_step))
