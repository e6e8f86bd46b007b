"""What a training gives, and the two ways in which it ends early."""

from __future__ import annotations

from dataclasses import dataclass

from peftlab.errors import PeftlabError
from peftlab.methods.adaptation import Adaptation


class Diverged(PeftlabError):
    """The loss became NaN or infinite; the message names the step."""


class Interrupted(PeftlabError):
    """Ctrl-C or SIGTERM came; everything is in the checkpoint and the same call continues."""


@dataclass(frozen=True)
class Trained:
    """A finished training: the best adaptation, and what it took.

    Attributes:
        step_seconds: median warm time of an optimiser step.
        seconds: all steps, without evaluation. tokens: packed tokens through the base.
        truncated: training rows that lost source tokens.
        losses: every step's loss. trunk_bytes: kept activations of the frozen trunk.
    """

    adaptation: Adaptation
    steps: int
    best_step: int
    validation_loss: float | None
    seconds: float
    step_seconds: float
    tokens: int
    truncated: int
    losses: list[float]
    trunk_bytes: int
