"""On a GPU everything that a method brings lies there too, and no step asks for a number back.

None is needed to see that: fake tensors have shapes and a device and no numbers, and refuse
operations over two devices and questions that only numbers could answer.
"""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import pack
from peftlab.loss import token_losses, training_row
from peftlab.methods import State
from tests.laws.cases import WHOLE_ROWS, made
from tests.laws.world import FAMILIES, tokenizer
from tests.models import tiny

GPU = "meta"


def _fake(tensor: torch.Tensor, **options: bool) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU, **options)


@lru_cache
def _on_gpu(family: str) -> tuple[FrozenLM, FakeTensorMode]:
    """A model that was checked on the CPU, its parameters and buffers then on a GPU."""
    lm, mode = (
        FrozenLM(tiny(family), tokenizer(), family),
        FakeTensorMode(allow_non_fake_inputs=True),
    )
    mode.allow_meta = True
    moved: dict[int, torch.Tensor] = {}  # tied ones stay tied
    for module in lm.model.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is None:
                    continue
                with mode:
                    there = moved.setdefault(id(tensor), _fake(tensor))
                is_parameter = isinstance(tensor, torch.nn.Parameter)
                own[name] = torch.nn.Parameter(there, False) if is_parameter else there
    return lm, mode


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", WHOLE_ROWS)
def test_losses_and_gradients_are_computed_where_the_base_lies(case: str, family: str) -> None:
    (lm, mode), it = _on_gpu(family), made(case, family)
    rows, moved = it.encoded, it.moved  # made before: what a trial keeps must not be fake
    with mode:
        tensors = {n: _fake(t, requires_grad=True) for n, t in moved.tensors.items()}
        materialised = it.method.materialise(State(tensors, moved.text), lm)
        edits = it.method.edits(materialised, lm, 3)
        batch = pack([training_row(r) for r in rows], [edits], device=lm.device, places=[0, 1, 2])
        losses = token_losses(lm, batch, rows)
        assert losses.device.type == GPU
        if tensors:
            losses.sum().backward()
    assert {t.grad.device.type for t in tensors.values() if t.grad is not None} <= {GPU}
