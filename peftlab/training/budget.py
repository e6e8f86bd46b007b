"""How long one training lasts: steps, tokens through the base, or seconds; the same for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from peftlab.training.checkpoint import Progress
from peftlab.training.config import TrainConfig

Kind = Literal["steps", "tokens", "seconds"]

_POINTS = 10_000  # a schedule over tokens or seconds is followed at so many points


@dataclass(frozen=True)
class Budget:
    """What one training may use.

    Steps and tokens repeat bit for bit; seconds do not: a slower moment means fewer steps.

    Attributes:
        amount: steps of the optimiser; or tokens through the base, where a backward pass counts
            as one more, so that a training token counts twice; or seconds of training steps.
    """

    kind: Kind
    amount: float

    @classmethod
    def of(cls, config: TrainConfig, rows: int) -> Budget:
        """The budget of a configuration over a training split of so many rows."""
        if config.tokens is not None:
            return cls("tokens", config.tokens)
        if config.seconds is not None:
            return cls("seconds", config.seconds)
        return cls("steps", config.total_steps(rows))

    def in_tokens(self, config: TrainConfig, lengths: Sequence[int]) -> Budget:
        """Steps as the tokens that they read, given the lengths of some rows."""
        if self.kind != "steps" or not lengths:
            return self
        return Budget("tokens", round(self.amount * 2 * fmean(lengths) * config.rows_a_step))

    def used(self, progress: Progress) -> float:
        """How much of it is used."""
        return {
            "steps": progress.step,
            "tokens": progress.forward_tokens,
            "seconds": progress.seconds + progress.spared_seconds,
        }[self.kind]

    def is_spent(self, progress: Progress) -> bool:
        """Whether another step, as large as the steps so far, would exceed it."""
        used = self.used(progress)
        return progress.step > 0 and used + used / progress.step > self.amount

    @property
    def points(self) -> int:
        """The length of the schedule of the learning rate, in its own units."""
        return int(self.amount) if self.kind == "steps" else _POINTS

    def point(self, progress: Progress) -> int:
        """How far the schedule has come."""
        used = self.used(progress)
        return int(used) if self.kind == "steps" else int(_POINTS * min(1.0, used / self.amount))

    def steps(self, config: TrainConfig, lengths: Sequence[int]) -> int | None:
        """About how many steps it is, given the lengths of some rows; None: a clock decides."""
        if self.kind == "steps":
            return int(self.amount)
        if self.kind == "seconds" or not lengths:
            return None
        return max(1, int(self.amount / (2 * fmean(lengths) * config.rows_a_step)))
