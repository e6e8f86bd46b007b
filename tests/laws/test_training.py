"""Laws of training that need the tests' own world: plain descent, another base, fresh weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from peftlab.bases.fingerprint import fingerprint
from peftlab.laws.trial import leaves
from peftlab.loss import mean_loss
from peftlab.training import TrainConfig, optimise, train
from tests.laws.cases import TRAINED, WHOLE_ROWS, made, method
from tests.laws.world import FAMILIES, model, task
from tests.models import tiny


def _plain_descent(_: TrainConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups)


@pytest.mark.parametrize("case", [case for case in TRAINED if "dropout" not in case])
def test_accumulated_equals_one_batch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With plain descent, so that a difference of gradients is a difference of tensors.

    Rows have 1 to 3 words of target: a mean of the micro-batches' means would not pass.
    """
    monkeypatch.setattr(optimise, "optimizer", _plain_descent)
    common: dict[str, Any] = {"steps": 1, "learning_rate": 1.0, "clip": 0.0, "warmup": 0.0}
    made = [
        train(model("gpt2"), method(case), task(), TrainConfig(**common, **sizes))
        for sizes in (
            {"batch_size": 4, "accumulation": 1},
            {"batch_size": 1, "accumulation": 4},
            {"batch_size": 3, "accumulation": 2},
        )
    ]
    expected, got, other = (each.adaptation.state.tensors for each in made)
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, atol=2e-5, rtol=1e-5)
    assert any(float((other[n] - t).abs().max()) > 1e-4 for n, t in expected.items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", TRAINED)
def test_it_runs_on_a_base_in_bf16(case: str, family: str) -> None:
    """The method's tensors stay in fp32: near the fp32 loss, all gradients there and finite."""
    it, full = made(case, family, torch.bfloat16), made(case, family)
    with torch.no_grad():
        expected = mean_loss(full.model, full.edits(full.first), full.encoded)
    state = leaves(it.first)
    losses = it.losses(state)
    assert abs(float(losses.detach().mean()) - expected) < 0.03 * expected
    losses.sum().backward()
    for tensor in state.tensors.values():
        assert tensor.grad is not None and tensor.grad.isfinite().all()
        assert tensor.grad.dtype == torch.float32


@pytest.mark.parametrize("case", WHOLE_ROWS)
def test_laws_begin_on_weights_that_nobody_has_changed(case: str) -> None:
    lm = model("llama")
    assert made(case, "llama").before == lm.fingerprint == _untouched()


@cache
def _untouched() -> str:
    return fingerprint(tiny("llama").named_parameters())
