"""Which part of a module's input and output is an owner's: rows of packed tokens."""

from __future__ import annotations

from typing import Any

import torch

Piece = tuple[int, int, torch.Tensor]  # start, stop, the rows' new values


def replace_rows(
    x: torch.Tensor, pieces: list[Piece], dim: int, *, fresh: bool = False
) -> torch.Tensor:
    """x with the given rows replaced, by one concatenation.

    Args:
        fresh: nobody else has x, so that without gradients its rows are overwritten.
    """
    if not pieces:
        return x
    size = x.shape[dim]
    if len(pieces) == 1 and pieces[0][:2] == (0, size):
        return pieces[0][2]
    if fresh and not torch.is_grad_enabled():
        for start, stop, values in pieces:
            x.narrow(dim, start, stop - start).copy_(values)
        return x
    out, at = [], 0
    for start, stop, values in sorted(pieces, key=lambda piece: piece[0]):
        out += [x.narrow(dim, at, start - at), values] if start > at else [values]
        at = stop
    if at < size:
        out.append(x.narrow(dim, at, size - at))
    return torch.cat(out, dim)


def part(x: torch.Tensor, dim: int, start: int, stop: int) -> torch.Tensor:
    """Some rows of x; all of them without a slice, whose backward would fill zeros and copy."""
    whole = start == 0 and stop == x.shape[dim]
    return x if whole else x.narrow(dim, start, stop - start)


def row_dim(x: torch.Tensor) -> int:
    """Where the packed tokens lie: [1, N, …], or [N, D] in families that flatten (OPT)."""
    return 0 if x.dim() == 2 and x.is_floating_point() else 1


class TokenAxis:
    """Which axis of a leaf's input holds the packed tokens.

    Inputs are [1, N, D] or [N, D]; norms of heads see [1, N, H, hd] or [1, H, N, hd]. Where N
    happens to equal H the sizes do not tell, so the answer is remembered from the calls where they
    do (the conformance check makes the first).
    """

    def __init__(self) -> None:
        self._remembered = 1

    def of(self, x: torch.Tensor, size: int) -> int:
        """The axis of `size` packed tokens."""
        fitting = [axis for axis, length in enumerate(x.shape) if length == size]
        if x.dim() == 4 and {1, 2} <= set(fitting):
            return self._remembered
        if x.dim() == 4 and fitting:
            self._remembered = fitting[0]
        return fitting[0] if fitting else 1

    def rows(self, x: Any, size: int, start: int, stop: int) -> Any:
        """The slice [start, stop) of the tokens; what is no tensor stays."""
        return x.narrow(self.of(x, size), start, stop - start) if isinstance(x, torch.Tensor) else x
