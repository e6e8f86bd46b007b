"""A change of weights as the closest LoRA: against closed formulas, and without a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.conversion import convert
from peftlab.conversion.fidelity import divergence
from peftlab.conversion.low_rank import _moments, best
from peftlab.edits import Edits
from peftlab.frozen.packing import pack
from peftlab.loss import training_row
from peftlab.methods import parse_one
from peftlab.training import TrainConfig
from peftlab.training.teacher import Teacher
from tests.conversion.test_convert import taught
from tests.laws import world


def _far(change: torch.Tensor, x: torch.Tensor, product: torch.Tensor) -> float:
    return float(((change - product) @ x.T).square().mean())


def test_the_best_fit_is_no_worse_than_any_other() -> None:
    rng = torch.Generator().manual_seed(0)
    change = torch.randn(7, 9, generator=rng)
    x = torch.randn(200, 9, generator=rng) * torch.arange(1, 10)
    down, up = best(change, x.T @ x / len(x), 3)
    left, sizes, right = torch.linalg.svd(change)
    plain = left[:, :3] * sizes[:3] @ right[:3]
    assert _far(change, x, up @ down) < _far(change, x, plain)
    # Eckart & Young: what is left is the rest of the singular values of the outputs.
    rest = torch.linalg.svdvals(change @ x.T)[3:].square().sum() / (7 * 200)
    assert _far(change, x, up @ down) == pytest.approx(float(rest), rel=1e-3)
    for _ in range(20):
        other = (up + 0.05 * torch.randn(up.shape, generator=rng)) @ down
        assert _far(change, x, up @ down) <= _far(change, x, other)


def test_of_alike_inputs_it_is_the_truncated_singular_value_decomposition() -> None:
    change = torch.randn(7, 9, generator=torch.Generator().manual_seed(1))
    left, sizes, right = torch.linalg.svd(change)
    for rank in (2, 7):
        down, up = best(change, torch.eye(9), rank)
        torch.testing.assert_close(up @ down, left[:, :rank] * sizes[:rank] @ right[:rank])
        torch.testing.assert_close(up.T @ up, torch.eye(rank))


def test_it_is_the_same_from_either_side() -> None:
    """More outputs than inputs, and inputs that never occur."""
    rng = torch.Generator().manual_seed(3)
    change, x = torch.randn(12, 5, generator=rng), torch.randn(40, 5, generator=rng)
    down, up = best(change, x.T @ x / 40, 2)
    rest = torch.linalg.svdvals(change @ x.T)[2:].square().sum() / (12 * 40)
    assert _far(change, x, up @ down) == pytest.approx(float(rest), rel=1e-2)
    down, up = best(change, torch.zeros(5, 5), 5)
    torch.testing.assert_close(up @ down, change)
    lower = change[:, :2] @ torch.randn(2, 5, generator=rng)
    down, up = best(lower, x.T @ x / 40, 5)
    assert len(down) == 2
    torch.testing.assert_close(up @ down, lower)


def test_directions_that_a_change_lacks_are_left_to_learn() -> None:
    rng = torch.Generator().manual_seed(2)
    change = torch.randn(7, 2, generator=rng) @ torch.randn(2, 9, generator=rng)
    down, up = best(change, torch.eye(9), 5)
    assert len(down) == 2
    torch.testing.assert_close(up @ down, change)
    noise = change + 1e-6 * torch.randn(7, 9, generator=rng)
    assert len(best(noise, torch.eye(9), 5, least=1e-4)[0]) == 2
    down, up = best(torch.zeros(7, 9), torch.eye(9), 5)
    assert down.shape == (0, 9) and up.shape == (7, 0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("to", ["lora:rank=8,alpha=3", "lora:rank=8,rslora=true"])
def test_a_lora_of_a_lora_needs_no_step(family: str, to: str) -> None:
    model, teacher, task = world.model(family), taught("lora:rank=8", family), world.task()
    made = convert(model, teacher, parse_one(to), task, TrainConfig(), fit_only=True)
    assert made.left_out is not None and made.steps == 0
    assert abs(made.left_out.beside) < 1e-6 and abs(made.left_out.within) < 1e-4
    assert divergence(Teacher(model, teacher), made.adaptation, task.train) < 1e-5
    assert made.fidelity.equal == 1 and made.fidelity.interval == (0.0, 0.0)


def test_ranks_above_the_changes_learn() -> None:
    model, teacher, task = world.model("llama"), taught("lora:rank=2"), world.task()
    made = pl.convert(model, teacher, "lora:rank=6", task, steps=4, batch_size=8)
    start = pl.convert(model, teacher, "lora:rank=6", task, steps=0)
    ups = {n: t for n, t in start.adaptation.state.tensors.items() if n.endswith("lora_B")}
    assert all((t[:, 2:] == 0).all() for t in ups.values())
    downs = {n: t for n, t in start.adaptation.state.tensors.items() if n.endswith("lora_A")}
    assert all((t[2:].abs().sum(1) > 0).all() for t in downs.values())
    assert made.fidelity.divergence <= start.fidelity.divergence + 1e-6


def test_what_a_lora_cannot_hold_is_said() -> None:
    model, task = world.model("llama"), world.task()
    config: dict[str, Any] = {"config": TrainConfig(), "fit_only": True}
    full = taught("full")
    narrow = convert(model, full, parse_one("lora:rank=1,targets=q"), task, **config).left_out
    wide = convert(model, full, parse_one("lora:rank=8"), task, **config).left_out
    assert narrow is not None and wide is not None
    assert 0 < wide.beside < narrow.beside < 1 and wide.within > 0
    biases = convert(model, taught("bitfit"), parse_one("lora"), task, **config).left_out
    assert biases is not None and biases.beside == pytest.approx(1.0)


def test_a_dora_starts_at_the_changed_weight() -> None:
    model, task, teacher = world.model("llama"), world.task(), taught("lora:rank=2")
    made = pl.convert(model, teacher, "lora:rank=4,dora=true", task, steps=0)
    assert made.fidelity.divergence < 1e-5


def test_moments_are_of_what_each_linear_reads() -> None:
    """The first block's, whose input transformers' own modules give."""
    model, task = world.model("llama"), world.task()
    rows = [task.template.encode(model.tokenizer, *pair, 90) for pair in task.pairs("train")[:3]]
    batches = [pack([training_row(row)], [Edits()]) for row in rows]
    targets = [t for t in parse_one("lora").chosen(model.shape) if ".0." in t.name]  # type: ignore[attr-defined]
    ((some, moments),) = _moments(model, targets, batches)
    assert len(some) == 7
    inside = model.model.model
    read = [
        inside.layers[0].input_layernorm(inside.embed_tokens(torch.tensor(row.ids[:-1])))
        for row in rows
    ]
    x = torch.cat(read)
    for role in "qkv":
        got = moments[f"model.layers.0.self_attn.{role}_proj"]
        torch.testing.assert_close(got, x.T @ x / len(x), atol=1e-5, rtol=1e-5)
    assert moments["model.layers.0.mlp.gate_proj"].equal(moments["model.layers.0.mlp.up_proj"])
