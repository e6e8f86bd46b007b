"""What saves memory changes no number: recomputed blocks, activations on the CPU, and both."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.offload import kept_on_cpu
from peftlab.frozen.packing import pack
from peftlab.loss import token_losses, training_row
from peftlab.methods import State
from tests.laws.cases import TRAINED, Made, leaves, made
from tests.laws.world import FAMILIES


def _run(it: Made, *, recompute: bool, offload: bool) -> tuple[torch.Tensor, State]:
    """The losses of three rows, and a state with their gradients."""
    state, encoded = leaves(it.moved), it.encoded()[:3]
    with ExitStack() as stack:
        if offload:
            staying = [*it.model.model.parameters(), *state.tensors.values()]
            stack.enter_context(kept_on_cpu(staying))
        edits = it.edits(state, seed=11)
        batch = pack([training_row(e) for e in encoded], [edits])
        losses = token_losses(
            it.model, batch, encoded, options=ForwardOptions(checkpoint=recompute)
        )
    losses.sum().backward()
    return losses.detach(), state


@pytest.mark.parametrize("case", TRAINED)
def test_losses_and_gradients_are_the_same(case: str) -> None:
    it = made(case, FAMILIES[TRAINED.index(case) % len(FAMILIES)])
    expected, plain = _run(it, recompute=False, offload=False)
    for recompute, offload in ((True, False), (False, True), (True, True)):
        losses, state = _run(it, recompute=recompute, offload=offload)
        torch.testing.assert_close(losses, expected, atol=1e-6, rtol=1e-6)
        for name, tensor in plain.tensors.items():
            assert tensor.grad is not None and state.tensors[name].grad is not None
            gap = float((state.tensors[name].grad - tensor.grad).norm())
            assert gap <= 1e-6 * max(1.0, float(tensor.grad.norm())), f"{name}: {gap:.1e}"
