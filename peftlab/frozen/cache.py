"""Keys and values of earlier tokens, preallocated, one slot a row.

transformers' DynamicCache concatenates the whole cache at every step; here a step writes its own
tokens into place, and rows join, leave and move by slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peftlab.errors import InputError


class KeyValueCache:
    """Per block `keys[b]` and `values[b]`, each [slots, H_kv, capacity, hd].

    Memory is taken for `slots × capacity` positions at once, on the block's first write, since only
    then the dtype is known (it differs under autocast).
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots, self.capacity = slots, capacity
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}

    def write(
        self, block: int, slot: int, past: int, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Put keys and values [H_kv, T, hd] into positions past…past+T−1 of a slot.

        Raises:
            InputError: the slot's capacity would be exceeded.
        """
        stop = past + keys.shape[-2]
        if stop > self.capacity:
            raise InputError(
                f"a row needs {stop} positions of the cache, which has {self.capacity}"
            )
        self._reserve(block, keys, values)
        self.keys[block][slot, :, past:stop] = keys
        self.values[block][slot, :, past:stop] = values

    def write_step(
        self,
        block: int,
        slots: torch.Tensor,
        past: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """One new position for each of R rows: slots [R], past [R], keys and values [H_kv, R, hd]."""
        self._reserve(block, keys, values)
        self.keys[block][slots, :, past] = keys.transpose(0, 1).to(self.keys[block].dtype)
        self.values[block][slots, :, past] = values.transpose(0, 1).to(self.values[block].dtype)

    def read(
        self, block: int, slots: Sequence[int], length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `length` positions of these slots: two tensors [R, H_kv, length, hd].

        A view where the slots are consecutive, else a copy.
        """
        keys, values = self.keys[block], self.values[block]
        if list(slots) == list(range(slots[0], slots[0] + len(slots))):
            chosen = slice(slots[0], slots[0] + len(slots))
            return keys[chosen, :, :length], values[chosen, :, :length]
        index = torch.tensor(slots, device=keys.device)
        return keys[:, :, :length].index_select(0, index), values[:, :, :length].index_select(
            0, index
        )

    def move(self, sources: Sequence[int], length: int) -> None:
        """Make slot i hold what slot `sources[i]` held, for i below len(sources)."""
        if list(sources) == list(range(len(sources))):
            return
        for store in (self.keys, self.values):
            for tensor in store.values():
                index = torch.tensor(sources, device=tensor.device)
                tensor[: len(sources), :, :length] = tensor[:, :, :length].index_select(0, index)

    def _reserve(self, block: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        if block not in self.keys:
            for store, like in ((self.keys, keys), (self.values, values)):
                size = (self.slots, like.shape[0], self.capacity, like.shape[-1])
                store[block] = torch.zeros(size, dtype=like.dtype, device=like.device)
