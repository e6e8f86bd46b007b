"""What a forward keeps for backward, counted in bytes of saved tensors."""

from __future__ import annotations

import pytest
import torch

from peftlab.errors import InputError
from peftlab.frozen.batch import Batch
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.offload import check_device, kept_on_cpu
from peftlab.frozen.packing import pack
from peftlab.laws.trial import leaves
from peftlab.loss import token_losses, training_row
from peftlab.tasks import Encoded
from peftlab.training import TrainConfig, train
from tests.laws.cases import made
from tests.laws.world import task

_ROWS = [Encoded.trained_from(tuple(range(3 + i, 67 + i)), 54) for i in range(4)]
_CASES = ("lora:rank=4,targets=all-linear,alpha=8", "full", "prefix_tuning", "ia3")
each_case = pytest.mark.parametrize("case", _CASES)


class Kept:
    """Bytes that autograd saves, each storage once, without the base's and the trained tensors."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        self._seen = {w.untyped_storage().data_ptr() for w in weights}
        self._held: list[torch.Tensor] = []  # so that no storage is freed and its address reused
        self.bytes = 0

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._held.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


def _batch(case: str) -> tuple[FrozenLM, Batch, list[torch.Tensor]]:
    it = made(case, "llama")
    state = leaves(it.moved)
    rows = [training_row(row) for row in _ROWS]
    batch = pack(rows, [it.edits(state)])
    return it.model, batch, [*it.model.model.parameters(), *state.tensors.values()]


def _kept(case: str, recompute: bool) -> int:
    model, batch, weights = _batch(case)
    kept = Kept(weights)
    with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
        token_losses(model, batch, _ROWS, options=ForwardOptions(checkpoint=recompute))
    return kept.bytes


@each_case
def test_recomputed_blocks_keep_their_inputs_alone(case: str) -> None:
    plain, recomputed = _kept(case, False), _kept(case, True)
    model, batch, _ = _batch(case)
    states = len(batch.ids) * model.shape.hidden * 4
    # Besides, the last norm's and the head's.
    assert recomputed <= (model.shape.layers + 3) * states
    assert recomputed < plain / 3


@each_case
@pytest.mark.parametrize("recompute", [False, True])
def test_moved_activations_leave_nothing_but_weights(case: str, recompute: bool) -> None:
    model, batch, weights = _batch(case)
    left = Kept(weights)
    real = torch.Tensor.cpu
    addresses: set[int] = set()

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        addresses.add(tensor.untyped_storage().data_ptr())
        return real(tensor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", cpu)
        with kept_on_cpu(weights) as moved:
            token_losses(model, batch, _ROWS, options=ForwardOptions(checkpoint=recompute))
    assert moved.bytes >= _kept(case, recompute) > 0
    assert not addresses & left._seen, "no weight was copied"


def test_a_whole_training_with_recomputed_blocks_is_the_same() -> None:
    it = made("lora:rank=4,dropout=0.2,plus=4", "llama")
    trainings = []
    for recompute in (False, True):
        config = TrainConfig(steps=4, batch_size=3, recompute=recompute)
        trainings.append(train(it.model, it.method, task(), config))
    for name, tensor in trainings[0].adaptation.state.tensors.items():
        torch.testing.assert_close(
            trainings[1].adaptation.state.tensors[name], tensor, atol=1e-6, rtol=1e-6
        )


def test_activations_of_a_base_on_the_cpu_are_not_moved_there() -> None:
    it = made("lora", "llama")
    with pytest.raises(InputError, match="--gradient-checkpointing"):
        train(it.model, it.method, task(), TrainConfig(steps=1, offload=True))
    check_device(torch.device("cuda"))
