"""Rotary embeddings of keys that no token has made: turned to a position, and back to none.

A prefix that stands at the cue keeps its keys as they are at position 0, since each row's cue is
elsewhere; a score depends on the distance alone only where they are turned with it (Su et al. 2021,
arXiv:2104.09864, section 3.2.2). The family's own function turns them, with the cosines and sines
that its attention gets; in families without rotary embeddings keys have no position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from peftlab.errors import InputError

Angles = tuple[torch.Tensor, torch.Tensor]  # cosines and sines [positions, rotated dimensions]
ROTARY = "apply_rotary_pos_emb"  # the name in every family of transformers that has one
_LEAST = 512  # positions of a table


class Rotary:
    """How a model turns keys.

    Args:
        angles: cosines and sines of the positions 0…n−1 as a block's attention gets them; None
            where it gets none. attention: of a block, the module.
        probe: of a block, keys that it makes of the same states at a position.
        longest: how many positions a table may have.
    """

    def __init__(
        self,
        angles: Callable[[int, int], Angles | None],
        attention: Callable[[int], torch.nn.Module],
        probe: Callable[[int, int], torch.Tensor],
        longest: int,
    ) -> None:
        self._angles, self._attention = angles, attention
        self._probe, self._longest = probe, longest
        self._tables: dict[int, Angles | None] = {}

    def turned(self, block: int, keys: torch.Tensor, start: int) -> torch.Tensor:
        """Keys [Hkv, P, hd] of position 0 at the positions start…start+P−1; differentiable.

        Raises:
            InputError: the block turns keys in a way of its own.
        """
        angles = self._at(block, start, keys.shape[-2])
        return keys if angles is None else self._apply(block, keys, *angles)

    def back(self, block: int, keys: torch.Tensor, start: int) -> torch.Tensor:
        """The keys of position 0 that `turned` makes these of."""
        angles = self._at(block, start, keys.shape[-2])
        if angles is None:
            return keys
        cos, sin = angles
        scale = cos.square() + sin.square()  # not 1 where the family scales attention in it
        return self._apply(block, keys, cos / scale, -sin / scale)

    def _apply(
        self, block: int, keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        function = rotary_function(self._attention(block))
        assert function is not None
        size = cos.shape[-1]  # smaller than hd where a part of each head is turned
        moving = keys[None, ..., :size]
        turned: torch.Tensor = function(moving, moving, cos, sin)[1].squeeze(0).to(keys.dtype)
        return turned if size == keys.shape[-1] else torch.cat([turned, keys[..., size:]], -1)

    def _at(self, block: int, start: int, count: int) -> Angles | None:
        """Cosines and sines [1, count, …] of the positions from `start` on; None: it turns none."""
        if block not in self._tables:
            self._tables[block] = self._checked(block)
        table = self._tables[block]
        if table is None:
            return None
        if len(table[0]) < start + count:
            table = self._tables[block] = self._table(block, start + count)
        cos, sin = (part[start : start + count].unsqueeze(0) for part in table)
        return cos, sin

    def _checked(self, block: int) -> Angles | None:
        """The first table of a block, held against what the block itself makes of keys.

        None where its keys do not hang on their position: in some families not every block's do,
        though all are given the cosines and sines.

        Raises:
            InputError: the block does otherwise.
        """
        keys, expected = (self._probe(block, position) for position in (0, 1))
        if torch.equal(keys, expected):
            return None
        if rotary_function(self._attention(block)) is not None:
            table = self._table(block, 2)
            turned = self._apply(block, keys, *(part[1:2].unsqueeze(0) for part in table))
            if torch.allclose(turned.float(), expected.float(), rtol=1e-2, atol=1e-2):
                return table
        raise self._own_way(block)

    def _table(self, block: int, length: int) -> Angles:
        size = min(self._longest, max(_LEAST, 1 << (length - 1).bit_length()))
        made = self._angles(block, max(size, length))
        if made is None:
            raise self._own_way(block)
        # Most families have one table for all blocks, or two: they are kept once.
        kept = (table for table in self._tables.values() if table and _same(table, made))
        return next(kept, made)

    def _own_way(self, block: int) -> InputError:
        return InputError(
            f"block {block} of this model turns keys to their positions in a way of its own, so a "
            "prefix cannot stand at the cue: use begin=row"
        )


def rotary_function(module: torch.nn.Module) -> Callable[..., Any] | None:
    """What an attention's own forward turns queries and keys with, if it is there by that name."""
    own = type(module).forward
    found = getattr(own, "__globals__", {}).get(ROTARY)
    return found if ROTARY in own.__code__.co_names else None


def _same(one: Angles, other: Angles) -> bool:
    alike = one[0].shape == other[0].shape
    return alike and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
