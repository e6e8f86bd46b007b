"""Rotary embeddings of keys that no token has made: turned to a position, and back to none.

A prefix that stands at the cue keeps its keys as they are at position 0, since each row's cue is
elsewhere; a score depends on the distance alone only where they are turned with it (Su et al. 2021,
arXiv:2104.09864, section 3.2.2). The family's own function turns them, with the cosines and sines
that its attention gets; in families without rotary embeddings keys have no position.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from peftlab.errors import InputError

Angles = tuple[torch.Tensor, torch.Tensor]  # cosines and sines [positions, rotated dimensions]
_FUNCTION = "apply_rotary_pos_emb"
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
        table = self._table(block, start + keys.shape[-2])
        if table is None:
            return keys
        cos, sin = (part[start : start + keys.shape[-2]].unsqueeze(0) for part in table)
        return self._apply(block, keys, cos, sin)

    def back(self, block: int, keys: torch.Tensor, start: int) -> torch.Tensor:
        """The keys of position 0 that `turned` makes these of."""
        table = self._table(block, start + keys.shape[-2])
        if table is None:
            return keys
        cos, sin = (part[start : start + keys.shape[-2]].unsqueeze(0) for part in table)
        scale = cos.square() + sin.square()  # not 1 where the family scales attention in it
        return self._apply(block, keys, cos / scale, -sin / scale)

    def _apply(
        self, block: int, keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        module = self._attention(block)
        function = type(module).forward.__globals__[_FUNCTION]
        size = cos.shape[-1]  # smaller than hd where a part of each head is turned
        moving = keys[None, ..., :size]
        turned: torch.Tensor = function(moving, moving, cos, sin)[1].squeeze(0).to(keys.dtype)
        return turned if size == keys.shape[-1] else torch.cat([turned, keys[..., size:]], -1)

    def _table(self, block: int, length: int) -> Angles | None:
        is_new = block not in self._tables
        if is_new or _too_short(self._tables[block], length):
            size = min(self._longest, max(_LEAST, 1 << (length - 1).bit_length()))
            made = self._angles(block, max(size, length)) if self._turns(block) else None
            # Most families have one table for all blocks, or two: they are kept once.
            kept = (table for table in self._tables.values() if _same(table, made))
            self._tables[block] = next(kept, made)
        if is_new:
            self._check(block)
        return self._tables[block]

    def _turns(self, block: int) -> bool:
        """Whether the block's keys hang on their position: in some families not every block's do,
        though all are given the cosines and sines.
        """
        return not torch.equal(self._probe(block, 0), self._probe(block, 1))

    def _check(self, block: int) -> None:
        """Hold what we make of keys against what the block makes of them.

        Raises:
            InputError: they differ.
        """
        keys, expected = self._probe(block, 0), self._probe(block, 1)
        turned = keys if self._tables[block] is None else self.turned(block, keys, 1)
        if not torch.allclose(turned.float(), expected.float(), rtol=1e-2, atol=1e-2):
            raise InputError(
                f"block {block} of this model turns keys to their positions in a way of its own, "
                "so a prefix cannot stand at the cue: use begin=row"
            )


def _too_short(table: Angles | None, length: int) -> bool:
    return table is not None and len(table[0]) < length


def _same(one: Angles | None, other: Angles | None) -> bool:
    if one is None or other is None:
        return one is other
    alike = one[0].shape == other[0].shape
    return alike and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
