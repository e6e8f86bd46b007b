"""Norms, rotary embeddings and gated activations in fewer passes: the same numbers, less kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from peftlab.edits import Edits
from peftlab.frozen import fused
from peftlab.frozen.families import REQUIRED
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from tests.frozen.hand_made import Maker
from tests.models import frozen, tiny

ROWS = [Row([5, 6, 7, 8, 9, 10, 11, 12], 0, 5), Row([9, 8, 7, 6, 5], 0, 2)]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "smollm3", "gpt2", "phi3"])
def test_logits_and_gradients_are_the_plain_ones(family: str) -> None:
    lm = frozen(family)
    maker = Maker(lm.shape)
    norms = {name: lm.copy_of(name) for name in lm.shape.parameters if "norm" in name}
    owners = maker.linear().compose(maker.prefix()).compose(Edits(weights=norms))
    tensors = [t.requires_grad_() for t in [*maker.tensors, *norms.values()]]
    outcomes = []
    for fast in (True, False):
        logits = lm(pack(ROWS, [owners]), ForwardOptions(fast=fast))
        slopes = torch.autograd.grad(logits.log_softmax(-1)[:, 7].sum(), tensors)
        outcomes.append([logits.detach(), *slopes])
    for ours, plain in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


def opened(module: type, make: Callable[[Any], object | None]) -> int:
    """How many modules of a kind in a tiny llama the fused form is found for."""
    return sum(make(m) is not None for m in tiny("llama").modules() if isinstance(m, module))


def test_every_part_of_a_llama_is_fused() -> None:
    assert opened(LlamaRMSNorm, fused.rms_norm) == 2 * 3 + 1
    assert opened(LlamaMLP, fused.gated_feed_forward) == 3
    assert opened(LlamaAttention, fused.rotary_attention) == 3


def test_what_computes_something_else_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def outside(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.variance_epsilon)

    def added(self: Any, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) + self.up_proj(x))
        return out

    def neighbours(q: Any, k: Any, cos: Any, sin: Any) -> tuple[torch.Tensor, torch.Tensor]:
        def turned(x: torch.Tensor) -> torch.Tensor:
            pairs = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
            return x * cos.unsqueeze(1) + pairs * sin.unsqueeze(1)

        return turned(q), turned(k)

    monkeypatch.setattr(LlamaRMSNorm, "forward", outside)
    monkeypatch.setattr(LlamaMLP, "forward", added)
    monkeypatch.setitem(LlamaAttention.forward.__globals__, "apply_rotary_pos_emb", neighbours)
    assert opened(LlamaRMSNorm, fused.rms_norm) == 0
    assert opened(LlamaMLP, fused.gated_feed_forward) == 0
    assert opened(LlamaAttention, fused.rotary_attention) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_promotes_as_the_plain_one_does(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = LlamaAttention.forward.__globals__["apply_rotary_pos_emb"]
    q, k = (torch.randn(1, heads, 3, 4).to(dtype).requires_grad_() for heads in (2, 1))
    angles = torch.cat([torch.randn(1, 3, 2)] * 2, -1)
    outcomes = []
    for turn in (plain, partial(fused.rotate, plain)):
        turned = torch.cat(turn(q, k, angles.cos(), angles.sin()), 1)
        outcomes.append([turned, *torch.autograd.grad(turned.pow(3).sum(), (q, k))])
    for theirs, ours in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_probes_leave_random_numbers_alone() -> None:
    model = tiny("llama")
    before = torch.get_rng_state()
    for module in model.modules():
        fused.rms_norm(module)
        fused.gated_feed_forward(module)
        fused.rotary_attention(module)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("tanh", [False, True])
def test_gradients_of_a_gated_activation(tanh: bool) -> None:
    torch.manual_seed(0)
    gate, up = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *x: fused._Gated.apply(*x, tanh), (gate, up))


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma3RMSNorm])
def test_gradients_of_a_norm(kind: Any) -> None:
    torch.manual_seed(0)
    module = kind(4)
    norm = fused.rms_norm(module)
    assert norm is not None
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: norm(x, weight=w), (x, weight))


def test_what_is_kept_for_backward() -> None:
    """Of a gated activation its two inputs, of a norm its input; their results are made again."""
    gate, up = (torch.randn(7, 6, requires_grad=True) for _ in range(2))
    norm = fused.rms_norm(LlamaRMSNorm(6).requires_grad_(False))
    assert norm is not None
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        fused._Gated.apply(gate, up, False)
        assert kept == [42, 42]
        kept.clear()
        norm(gate, torch.ones(6))
    assert sorted(kept) == [6, 7, 42]


@pytest.mark.parametrize("family", REQUIRED)
def test_every_family_loads_in_bf16(family: str) -> None:
    """Rotary embeddings of some return the format that they were given, those of others do not."""
    plain = tiny(family).to(torch.bfloat16)
    assert FrozenLM(plain, name=family).conformance


def test_norms_under_autocast_are_the_plain_ones() -> None:
    lm = frozen("qwen3")
    batch = pack(ROWS, [Edits()])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fast, plain = (lm(batch, ForwardOptions(fast=fast)) for fast in (True, False))
    assert torch.equal(fast, plain)


def test_a_clamp_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def clamped(self: Any, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj(x).clamp(max=16), self.up_proj(x).clamp(-16, 16)
        out: torch.Tensor = self.down_proj(self.act_fn(gate) * up)
        return out

    monkeypatch.setattr(LlamaMLP, "forward", clamped)
    assert opened(LlamaMLP, fused.gated_feed_forward) == 0
