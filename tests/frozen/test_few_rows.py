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
        fast = few_rows.forward(module)
        assert fast is not None
        found = fast(x)
        torch.testing.assert_close(found, module(x), atol=1e-6, rtol=1e-5)
    assert found.is_contiguous() and found.shape == (1, rows, 40)
    assert bool(products) == (2 <= rows <= 16)


def test_other_modules_formats_and_gradients_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Own(torch.nn.Linear):
        pass

    assert few_rows.forward(Own(8, 8)) is None and few_rows.forward(torch.nn.LayerNorm(8)) is None

    def no_product(*_: object) -> None:
        raise AssertionError("a product of few rows")

    monkeypatch.setattr(torch, "mm", no_product)
    half = torch.nn.Linear(8, 8, dtype=torch.bfloat16)
    for module, grad in ((half, False), (torch.nn.Linear(8, 8), True)):
        x = torch.ones(4, 8, dtype=module.weight.dtype)
        fast = few_rows.forward(module)
        with torch.set_grad_enabled(grad):
            assert fast is not None and fast(x).equal(module(x))
