"""The optimiser of a run and the accelerator that it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftlab.training.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from peftlab.frozen.model import FrozenLM
    from peftlab.processes import Processes


def accelerator(precision: str, model: FrozenLM, processes: Processes) -> Accelerator:
    """The accelerator of this process, in the precision that was asked for.

    What `auto` stands for is found by timing, so the first process finds it for all.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    from peftlab.measure import choose_precision

    chosen = choose_precision(model.shape.parameters.values(), model.device, precision)
    name = processes.told(chosen.name)[0]
    mixed = "no" if name == "fp32" else name
    shared = AcceleratorState._shared_state
    if shared and shared.get("_mixed_precision") != mixed:
        AcceleratorState._reset_state()  # one process trains in several precisions
    # The loop accumulates by itself: a number from the launcher's environment would divide twice.
    once = GradientAccumulationPlugin(num_steps=1)
    cpu = model.device.type == "cpu"
    return Accelerator(mixed_precision=mixed, cpu=cpu, gradient_accumulation_plugin=once)


def optimizer(config: TrainConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of these parameter groups."""
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # Fixed rate and no scaling by the parameter's size, as in the prompt tuning paper.
        return Adafactor(
            groups, scale_parameter=False, relative_step=False, weight_decay=config.weight_decay
        )
    # Fused: one pass over every tensor in place of a dozen.
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
