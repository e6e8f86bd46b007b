"""Products of few rows, as decoding has them, in the form in which BLAS is fast.

A product of few rows waits for its weight to come from memory. As (W xᵀ)ᵀ it takes hardly longer
than that; as x Wᵀ, which torch's `linear` asks for, up to four times as long. docs/performance.md
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

_FEW, _MOST = 8, 16  # above the first, rows are filled up to the second: a vector of AVX-512


def forward(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """A linear's forward that is fast on few rows; None for other modules.

    None for subclasses too, which may keep their weight in another form.
    """
    return partial(_forward, module, module.forward) if type(module) is torch.nn.Linear else None


def _forward(
    module: torch.nn.Linear, plain: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    rows = x.numel() // x.shape[-1]
    if not 2 <= rows <= _MOST or torch.is_grad_enabled() or not _is_fp32_on_cpu(module.weight, x):
        return plain(x)
    given = x.reshape(rows, -1)
    if rows > _FEW:
        given = torch.nn.functional.pad(given, (0, 0, 0, _MOST - rows))
    y = torch.mm(module.weight, given.T)[:, :rows].T.contiguous()
    if module.bias is not None:
        y += module.bias
    return y.reshape(*x.shape[:-1], -1)


def _is_fp32_on_cpu(weight: torch.Tensor, x: torch.Tensor) -> bool:
    on_cpu = x.device.type == weight.device.type == "cpu"
    return on_cpu and x.dtype == weight.dtype == torch.float32
