"""The loss under a frozen head equals the plain cross-entropy of the model's logits."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest
import torch

from peftlab.edits import Edits, LinearEdit
from peftlab.frozen.forward import ForwardContext, ForwardOptions
from peftlab.frozen.packing import pack
from peftlab.loss import mean_loss, mean_of, token_losses, training_row
from peftlab.tasks import Encoded
from tests.frozen.hand_made import Maker
from tests.models import frozen


def _rows() -> list[Encoded]:
    rng = torch.Generator().manual_seed(3)
    lengths = [12, 30, 21, 60, 45, 33]
    ids = [torch.randint(3, 120, (n,), generator=rng).tolist() for n in lengths]
    return [Encoded.trained_from(tuple(row), len(row) - 6) for row in ids]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text", "cohere", "gemma2", "granite"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_fast_paths_change_neither_losses_nor_gradients(family: str, smoothing: float) -> None:
    lm, rows = frozen(family), _rows()
    maker = Maker(lm.shape)
    edits = maker.prefix().compose(maker.linear()).compose(maker.gated()).compose(maker.sublayer())
    results = []
    for fast in (True, False):
        batch = pack([training_row(row) for row in rows], [edits])
        options = ForwardOptions(fast=fast)
        assert lm.head_runs_apart(batch, options) is fast
        assert ForwardContext(batch, options).narrows is fast
        losses = token_losses(lm, batch, rows, smoothing, options)
        weights = torch.linspace(0.5, 2, len(losses))
        results.append((losses, torch.autograd.grad((losses * weights).sum(), maker.tensors)))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for got, expected in zip(results[0][1], results[1][1], strict=True):
        assert float((got - expected).norm()) <= 2e-5 * float(expected.norm()) + 1e-6


def test_an_edited_head_is_not_run_apart() -> None:
    lm, rows = frozen("gpt2"), _rows()
    tied = torch.randn(120, 32, requires_grad=True)
    up = torch.ones(120, 1, requires_grad=True)
    low_rank = Edits(linear={"lm_head": LinearEdit(down=torch.ones(1, 32), up=up)})
    for edits, tensor in ((Edits(weights={"transformer.wte.weight": tied}), tied), (low_rank, up)):
        batch = pack([training_row(row) for row in rows], [edits])
        assert not lm.head_runs_apart(batch)
        token_losses(lm, batch, rows).sum().backward()
        assert tensor.grad is not None and float(tensor.grad.abs().sum()) > 0


def test_mean_loss_is_over_target_tokens_of_all_rows() -> None:
    lm, rows = frozen("llama"), _rows()
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row.ids])
        logits = lm(pack([training_row(row)], [Edits()]), ForwardOptions(fast=False))
        wanted = ids[0, row.target_start :]
        total += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").detach())
        count += len(wanted)
    assert mean_loss(lm, Edits(), rows) == pytest.approx(total / count, abs=1e-5)


def test_the_standard_error_is_that_of_samples_of_rows() -> None:
    """Against many samples of so many rows from a population of other lengths and losses."""
    rng = random.Random(5)
    counts = [rng.randint(4, 60) for _ in range(3000)]
    sums = [count * rng.gauss(2.0, 0.5) for count in counts]
    losses, errors = [], []
    for _ in range(400):
        chosen = rng.choices(range(3000), k=50)
        mean = mean_of([sums[i] for i in chosen], [counts[i] for i in chosen])
        losses.append(mean.loss)
        errors.append(mean.error or 0.0)
    assert fmean(errors) == pytest.approx(stdev(losses), rel=0.12)
    assert mean_of([3.0, 3.0, 6.0], [3, 3, 6]).error == 0.0
    assert mean_of([1.0, 2.0], [1, 1]) == (1.5, pytest.approx(0.5))
    assert mean_of([2.0], [4]) == (0.5, None)
