"""Every trained tensor gets its gradient, whatever ran before, between, or in another thread."""

from __future__ import annotations

import threading

import pytest
import torch

from peftlab.edits import Edits
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.packing import pack
from peftlab.loss import row_losses, token_losses, training_row
from peftlab.methods import State
from tests.laws.cases import CASES, TRAINED, Made, leaves, made
from tests.laws.test_rows import same_gradients
from tests.laws.world import FAMILIES

each_family = pytest.mark.parametrize("family", FAMILIES)
each_trained = pytest.mark.parametrize("case", TRAINED)

Gradients = dict[str, torch.Tensor | None]


def _backward(
    it: Made,
    state: State,
    *,
    recompute: bool = False,
    disturbed: bool = False,
) -> None:
    """Backward of three rows' losses; when disturbed, after another batch and in another thread."""
    encoded = it.encoded()[:3]
    rows = [training_row(e) for e in encoded]
    batch, options = pack(rows, [it.edits(state, seed=11)]), ForwardOptions(checkpoint=recompute)
    loss = token_losses(it.model, batch, encoded, options=options).sum()
    if not disturbed:
        loss.backward()
        return
    other = made("full", it.model.name)
    with torch.no_grad():
        it.model(pack(other.rows(), [other.edits(other.moved)]))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            loss.backward()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed, failed


def _gradients(state: State) -> Gradients:
    return {name: tensor.grad for name, tensor in state.tensors.items()}


@each_family
@each_trained
def test_every_tensor_gets_a_gradient_right_after_an_evaluation(case: str, family: str) -> None:
    it = made(case, family)
    state = leaves(it.first)
    with torch.no_grad():  # an evaluation, of this very state and of its stored form
        edits = it.edits(state).detach()
        row_losses(it.model, edits, it.encoded())
        it.adaptation(state).edits(it.model)
    _backward(it, state)
    missing = [name for name, gradient in _gradients(state).items() if gradient is None]
    assert not missing, "no gradient at the first step"
    torch.optim.AdamW(state.tensors.values(), lr=1e-2).step()
    for tensor in state.tensors.values():
        tensor.grad = None
    _backward(it, state)
    zero = [n for n, g in _gradients(state).items() if g is None or not float(g.abs().max()) > 0]
    assert not zero, "still no gradient after a step"
    assert all(p.grad is None for p in it.model.model.parameters()), "the base is frozen"


@each_family
@each_trained
def test_recomputed_in_another_thread_after_another_batch_it_is_the_same(
    case: str, family: str
) -> None:
    it = made(case, family)
    plain, recomputed = leaves(it.moved), leaves(it.moved)
    _backward(it, plain)
    _backward(it, recomputed, recompute=True, disturbed=True)
    expected = {name: g for name, g in _gradients(plain).items() if g is not None}
    got = {name: g for name, g in _gradients(recomputed).items() if g is not None}
    assert got.keys() == expected.keys() == plain.tensors.keys()
    same_gradients(got, expected, family)


@pytest.mark.parametrize("case", CASES)
def test_edits_are_a_function_of_the_state_alone(case: str) -> None:
    """Twice the same edits of the same state: nothing is kept on the method or the model."""
    it = made(case, "llama")
    rows = it.rows()
    with torch.no_grad():
        first = it.model(pack(rows, [it.edits(it.moved, seed=4)]))
        it.model(pack(rows, [it.edits(it.first, seed=5)]))
        again = it.model(pack(rows, [it.edits(it.moved, seed=4)]))
    assert torch.equal(first, again)


def test_without_edits_there_is_nothing_to_train() -> None:
    """A negative control: the frozen model's loss hangs on no gradient."""
    it = made("hard_prompt", "gpt2")
    encoded = it.encoded()[:2]
    losses = token_losses(it.model, pack([training_row(e) for e in encoded], [Edits()]), encoded)
    assert not losses.requires_grad
