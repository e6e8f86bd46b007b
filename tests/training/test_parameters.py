"""The trained tensors and their optimiser: what a step moves is what the gradient says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from peftlab.processes import ALONE
from peftlab.training import TrainConfig
from peftlab.training.optimise import optimizer
from peftlab.training.parameters import Parameters

WHOLE = torch.arange(12.0).reshape(4, 3)
STARTS = {
    "a part of wider rows": torch.cat([WHOLE, -WHOLE], 1)[:, :3],
    "transposed": WHOLE.T.contiguous().T,
    "one number for all": torch.ones(1, 1).expand(4, 3),
}


def _moved(start: torch.Tensor) -> torch.Tensor:
    parameters = Parameters({"it": start}, ALONE)
    held: Mapping[str, torch.Tensor] = parameters.held
    chosen = optimizer(TrainConfig(weight_decay=0.1), [{"params": list(held.values()), "lr": 0.1}])
    for _ in range(3):
        chosen.zero_grad()
        (held["it"] * torch.linspace(-1, 1, 12).reshape(4, 3)).sin().sum().backward()
        chosen.step()
    return held["it"].detach()


@pytest.mark.parametrize("name", STARTS)
def test_a_start_of_any_layout_is_trained_as_its_copy(name: str) -> None:
    start = STARTS[name]
    assert torch.equal(_moved(start), _moved(start.clone(memory_format=torch.contiguous_format)))
