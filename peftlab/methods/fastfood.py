"""Fastfood: a random projection from d to D numbers in D log d operations, never held as a matrix.

Le, Sarlós & Smola 2013, arXiv:1408.3060, section 3: blocks of n = 2^k ≥ d rows, each
H G Π H B with H a Hadamard matrix, G normal and B random signs on a diagonal, and Π a permutation,
stand one above the other until there are D rows. As Aghajanyan et al. 2021 (arXiv:2012.13255) do,
each block is divided by the norm of its G, so that all rows are equally long.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from peftlab.lazy import torch

_FACTOR = 32  # a transform of n numbers is one by matrices of this size, in few passes


@dataclass(frozen=True)
class Fastfood:
    """A projection [D, d] whose rows have length 1 on average. K blocks of n rows.

    Attributes:
        signs: B, int8 [K, n]. order: Π, int32 [K·n], into all blocks.
        gains: G, with the blocks' scale [K, n].
    """

    rows: int
    signs: torch.Tensor
    order: torch.Tensor
    gains: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[d] -> [D]; differentiable."""
        padded = torch.nn.functional.pad(x, (0, self.signs.shape[1] - len(x)))
        mixed = hadamard(self.signs * padded)
        shuffled = mixed.flatten().index_select(0, self.order).view_as(self.gains)
        return hadamard(shuffled * self.gains).flatten()[: self.rows]


@lru_cache(maxsize=1)
def fastfood(seed: int, columns: int, rows: int, device: torch.device) -> Fastfood:
    """The projection of a seed; it takes 9 bytes a row, and the last one is kept.

    Its numbers come from RandomState, whose stream numpy has promised never to change: a stored
    seed means the same projection for good.
    """
    rng = np.random.RandomState(seed)
    n = 1 << (columns - 1).bit_length()
    blocks = -(-rows // n)
    signs = rng.randint(0, 2, (blocks, n), dtype=np.int8) * 2 - 1
    within = rng.random_sample((blocks, n)).argsort(axis=1)
    order = (within + n * np.arange(blocks)[:, None]).astype(np.int32)
    gains = rng.standard_normal((blocks, n))
    gains /= np.linalg.norm(gains, axis=1, keepdims=True) * columns**0.5
    made = (signs, order.flatten(), gains.astype(np.float32))
    return Fastfood(rows, *(torch.from_numpy(array).to(device) for array in made))


def hadamard(x: torch.Tensor) -> torch.Tensor:
    """H x along the last axis, whose length n is a power of two; H is not scaled (H H = n).

    H is a Kronecker product of small Hadamard matrices: each pass multiplies by one of them along
    the last part of the axis, and moves that part to the front.
    """
    shape, done = x.shape, 1
    while done < shape[-1]:
        size = min(_FACTOR, shape[-1] // done)
        x = x.reshape(-1, size) @ _matrix(size, x.device)
        x = x.view(-1, shape[-1] // size, size).transpose(1, 2)
        done *= size
    return x.reshape(shape)


@lru_cache
def _matrix(size: int, device: torch.device) -> torch.Tensor:
    from scipy.linalg import hadamard as matrix

    return torch.from_numpy(matrix(size).astype(np.float32)).to(device)
