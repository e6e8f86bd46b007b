"""What saves memory changes no number: recomputed blocks, activations on the CPU, and both."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.offload import kept_on_cpu
from peftlab.laws.law import law, require_close, require_close_gradients, untrained
from peftlab.laws.trial import gradients, leaves

if TYPE_CHECKING:
    from peftlab.laws.trial import Trial
    from peftlab.methods import State

_NEARER = 0.05  # of the tolerance: the same operations in the same order


@law("what saves memory changes no number", untrained)
def saving(it: Trial) -> None:
    expected, plain = _run(it, recompute=False, offload=False)
    tolerance = _NEARER * it.tolerance
    for recompute, offload in ((True, False), (False, True), (True, True)):
        told = f"losses with recompute={recompute}, offload={offload} differ"
        losses, state = _run(it, recompute=recompute, offload=offload)
        require_close([losses], [expected], tolerance, told)
        require_close_gradients(gradients(state), gradients(plain), tolerance)


def _run(it: Trial, *, recompute: bool, offload: bool) -> tuple[torch.Tensor, State]:
    """The rows' losses, and a state with their gradients."""
    state = leaves(it.moved)
    with ExitStack() as stack:
        if offload:
            staying = [*it.model.model.parameters(), *state.tensors.values()]
            stack.enter_context(kept_on_cpu(staying))
        losses = it.losses(state, seed=11, options=ForwardOptions(checkpoint=recompute))
    losses.sum().backward()
    return losses.detach(), state
