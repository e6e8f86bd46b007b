"""What a training gives, and the two ways in which it ends early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from peftlab.errors import PeftlabError
from peftlab.training.checkpoint import Progress

Made = TypeVar("Made")


class Diverged(PeftlabError):
    """The loss became NaN or infinite; the message names the step, which is also in `step`.

    Attributes:
        progress: what training had taken by then.
    """

    progress: Progress | None = None

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Interrupted(PeftlabError):
    """Ctrl-C or SIGTERM came; everything is in the checkpoint and the same call continues."""


@dataclass(frozen=True)
class Trained(Generic[Made]):
    """A finished training: the best state as it is used, and what it took.

    Attributes:
        adaptation: of our own methods an `Adaptation`, of guests PEFT's model.
        validation_loss, validation_error: the lowest of all validations, and its standard error.
        step_seconds: median warm time of an optimiser step.
        seconds: all steps, without evaluation. tokens: packed ones of training rows.
        forward_tokens: tokens through the base, those of a backward pass once more.
        validated, validation_seconds: tokens and time of validations. saving_seconds: of
            checkpoints. spared_seconds: which steps would have taken besides, had not other runs
            computed what they found kept. earlier_seconds: what of all but that was an earlier
            process's.
        truncated: training rows, of those that steps took, that lost source tokens, lost_replies:
            that would have been trained on in them. skipped: rows that were left out.
        losses: every step's loss. trunk_bytes: kept activations of the frozen trunk.
    """

    adaptation: Made
    steps: int
    best_step: int
    validation_loss: float | None
    seconds: float
    step_seconds: float
    tokens: int
    forward_tokens: int
    validated: int
    validation_seconds: float
    truncated: int
    losses: list[float]
    trunk_bytes: int
    skipped: int = 0
    lost_replies: int = 0
    saving_seconds: float = 0.0
    spared_seconds: float = 0.0
    earlier_seconds: float = 0.0
    validation_error: float | None = None
