"""Every trained tensor gets its gradient, whatever ran before, between, or in another thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch

from peftlab.frozen.forward import ForwardOptions
from peftlab.laws.law import law, require, require_close_gradients, untrained
from peftlab.laws.trial import gradients, leaves
from peftlab.loss import row_losses

if TYPE_CHECKING:
    from peftlab.laws.trial import Trial


@law("edits are a function of the state alone")
def function_of_the_state(it: Trial) -> None:
    one = it.logits(it.rows(), it.edits(it.moved, seed=4))
    it.logits(it.rows(), it.edits(it.first, seed=5))
    again = it.logits(it.rows(), it.edits(it.moved, seed=4))
    require(all(map(torch.equal, one, again)), "the same state gives other edits after another")


@law("every tensor gets a gradient right after an evaluation", untrained)
def every_tensor(it: Trial) -> None:
    state = leaves(it.first)
    with torch.no_grad():  # an evaluation, of this very state and of its stored form
        row_losses(it.model, it.edits(state).detach(), it.encoded)
        it.adaptation(state).edits(it.model)
    it.losses(state).sum().backward()
    missing = sorted(state.tensors.keys() - gradients(state).keys())
    require(not missing, f"no gradient at the first step for {', '.join(missing)}")
    torch.optim.AdamW(state.tensors.values(), lr=1e-2).step()
    for tensor in state.tensors.values():
        tensor.grad = None
    it.losses(state).sum().backward()
    sizes = {name: float(gradient.abs().max()) for name, gradient in gradients(state).items()}
    still = [name for name in state.tensors if not 0 < sizes.get(name, 0.0) < torch.inf]
    told = ", ".join(f"{name}: {sizes.get(name)}" for name in still)
    require(not still, f"no finite gradient after a step for {told}")
    frozen = [name for name, p in it.model.model.named_parameters() if p.grad is not None]
    require(not frozen, f"the frozen {', '.join(frozen)} get a gradient")


@law("recomputed in another thread after another batch, gradients are the same", untrained)
def recomputed(it: Trial) -> None:
    plain, disturbed = leaves(it.moved), leaves(it.moved)
    it.losses(plain, seed=11).sum().backward()
    loss = it.losses(disturbed, seed=11, options=ForwardOptions(checkpoint=True)).sum()
    for other in it.neighbours:
        it.logits(it.plain_rows(), other)
    _in_a_thread(loss)
    require(gradients(plain).keys() == plain.tensors.keys(), "not every tensor gets a gradient")
    require_close_gradients(gradients(disturbed), gradients(plain), it.tolerance)


def _in_a_thread(loss: torch.Tensor) -> None:
    """Backward of a loss, its errors raised here."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            loss.backward()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in failed:
        raise error
