"""What a trial of a search is: a shorter training, validated often enough to be ended early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from peftlab.training import TrainConfig

_VALIDATIONS = 5  # at least so many in a trial, so that it can be ended early


def trial_config(config: TrainConfig, share: float, pairs: int) -> TrainConfig:
    """A trial's settings: its share of a run's budget, and its validations.

    Args:
        pairs: of the training split.
    """

    def part(amount: float | None, least: float) -> Any:
        return None if amount is None else type(amount)(max(least, amount * share))

    shorter = replace(
        config,
        steps=part(config.steps, 1),
        epochs=part(config.epochs, 1e-9),
        tokens=part(config.tokens, 1),
        seconds=part(config.seconds, 1e-9),
        patience=0,
    )
    every = config.evaluate_every or config.steps
    if config.tokens is not None:
        every = max(1, every // _VALIDATIONS)
    elif config.seconds is None:
        every = min(every, max(1, shorter.total_steps(pairs) // _VALIDATIONS))
    return replace(shorter, evaluate_every=every)
