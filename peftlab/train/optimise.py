"""The optimiser of a run and the accelerator that it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftlab.train.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from peftlab.frozen.model import FrozenLM


def accelerator(precision: str, model: FrozenLM) -> Accelerator:
    """The accelerator of this process, in the precision that was asked for."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from peftlab.measure import choose_precision

    chosen = choose_precision(model.shape.parameters.values(), model.device, precision)
    mixed = "no" if chosen.name == "fp32" else chosen.name
    shared = AcceleratorState._shared_state
    if shared and shared.get("_mixed_precision") != mixed:
        AcceleratorState._reset_state()  # one process trains in several precisions
    return Accelerator(mixed_precision=mixed, cpu=model.device.type == "cpu")


def optimizer(config: TrainConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of these parameter groups."""
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # Fixed rate and no scaling by the parameter's size, as in the prompt tuning paper.
        return Adafactor(
            groups, scale_parameter=False, relative_step=False, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
