"""The arithmetic of attention in formats that are not float32."""

from __future__ import annotations

import pytest
import torch

from peftlab.frozen.dot_product import Rule, dot_product_attention


def attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: Rule
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    out = dot_product_attention(*inputs, None, True, rule)
    return out, torch.autograd.grad(out.float().square().sum(), inputs)


@pytest.mark.parametrize("rule", [Rule(0.3), Rule(0.3, softcap=20.0)], ids=["plain", "softcap"])
@pytest.mark.parametrize("autocast", [False, True])
def test_with_gradients_a_cpu_attends_in_float32(rule: Rule, autocast: bool) -> None:
    """Of bf16 a kernel is compiled for every length, and rows are of every length."""
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 2, 7, 8, generator=generator).bfloat16() for _ in range(3)]
    expected, slopes = attended(*(x.float() for x in given), rule)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        attended_to, own = attended(*given, rule)
    assert attended_to.dtype == torch.bfloat16
    assert torch.equal(attended_to, expected.bfloat16())
    for slope, piece in zip(slopes, own, strict=True):
        assert piece.dtype == torch.bfloat16
        torch.testing.assert_close(piece.float(), slope, rtol=0.02, atol=0.02)
