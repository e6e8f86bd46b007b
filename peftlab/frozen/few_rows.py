"""Products of few rows, as decoding has them, in the form in which BLAS is fast.

A product of few rows waits for its weight to come from memory. As (W xᵀ)ᵀ it takes hardly longer
than that; as x Wᵀ, which torch's `linear` asks for, up to four times as long. docs/performance.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_FEW, _MOST = 8, 16  # above the first, rows are filled up to the second: a vector of AVX-512


def forward(module: torch.nn.Module, plain: Callable[..., Any], x: torch.Tensor) -> Any:
    """What a linear makes of x [..., in] without gradients; plain where it is no such product."""
    rows = x.numel() // x.shape[-1]
    if not 2 <= rows <= _MOST or not _is_plain(module, x):
        return plain(x)
    assert isinstance(module, torch.nn.Linear)
    given = x.reshape(rows, -1)
    if rows > _FEW:
        given = torch.nn.functional.pad(given, (0, 0, 0, _MOST - rows))
    y = torch.mm(module.weight, given.T)[:, :rows].T
    y = y.contiguous() if module.bias is None else y + module.bias
    return y.reshape(*x.shape[:-1], -1)


def _is_plain(module: torch.nn.Module, x: torch.Tensor) -> bool:
    """Not of a subclass, which may keep its weight in another form, nor in half precision."""
    return (
        type(module) is torch.nn.Linear
        and x.device.type == module.weight.device.type == "cpu"
        and x.dtype == module.weight.dtype == torch.float32
    )
