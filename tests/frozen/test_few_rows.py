"""Products of few rows: the same numbers as torch's, for each number of rows, and only there."""

from __future__ import annotations

import pytest
import torch

from peftlab.frozen import few_rows


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9, 15, 16, 17])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_linear(rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = torch.nn.Linear(24, 40, bias=bias)
    x = torch.randn(1, rows, 24, generator=torch.Generator().manual_seed(rows))
    products: list[torch.Size] = []
    own = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: (products.append(b.shape), own(a, b))[1])
    with torch.no_grad():
        found = few_rows.forward(module, module.forward, x)
        torch.testing.assert_close(found, module(x), atol=1e-6, rtol=1e-5)
    assert found.is_contiguous() and found.shape == (1, rows, 40)
    assert bool(products) == (2 <= rows <= 16)


def test_other_modules_and_formats_are_left_alone() -> None:
    class Own(torch.nn.Linear):
        pass

    for module, kind in (
        (Own(8, 8), torch.float32),
        (torch.nn.Linear(8, 8, dtype=torch.bfloat16), torch.bfloat16),
        (torch.nn.LayerNorm(8), torch.float32),
    ):
        called: list[torch.Tensor] = []
        x = torch.randn(4, 8, dtype=kind)
        few_rows.forward(module, lambda given, called=called: called.append(given), x)
        assert called == [x] or called[0] is x
