"""Keys and values of earlier tokens, preallocated, one slot a row.

transformers' DynamicCache concatenates the whole cache at every step; here a step writes its own
tokens into place, and rows join, leave and move by slot.
"""

from __future__ import annotations

import math
import mmap

import torch

from peftlab.errors import InputError


class KeyValueCache:
    """Per block `keys[b]` and `values[b]`, each [slots, H_kv, capacity, hd].

    Room for `slots × capacity` positions is reserved at once, on the block's first write, since
    only then the dtype is known (it differs under autocast). On a CPU no memory is taken for a
    position before it is written, so short rows cost what they are long.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots, self.capacity = slots, capacity
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self._pages: list[mmap.mmap] = []  # what lies under the tensors, on a CPU

    def write(
        self, block: int, slot: int, past: int, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Put keys and values [H_kv, T, hd] into positions past…past+T−1 of a slot.

        Raises:
            InputError: the slot's capacity would be exceeded, or there is no room for the slots.
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
        """One new position a row: slots [R], past [R], keys and values [H_kv, R, hd]."""
        self._reserve(block, keys, values)
        self.keys[block][slots, :, past] = keys.transpose(0, 1).to(self.keys[block].dtype)
        self.values[block][slots, :, past] = values.transpose(0, 1).to(self.values[block].dtype)

    def read(
        self, block: int, slot: int, count: int, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of `count` slots' first positions: two tensors [count, H_kv, length, hd]."""
        chosen = slice(slot, slot + count)
        return self.keys[block][chosen, :, :length], self.values[block][chosen, :, :length]

    def copied(self, slot: int, start: int, stop: int) -> list[torch.Tensor]:
        """Positions of a slot in memory of their own, of all blocks that were written.

        Returns:
            keys and values stacked, [n, H_kv, stop − start, hd]; a tensor for each shape of blocks.
        """
        return [torch.stack([own[slot, :, start:stop] for own in same]) for same in self._alike()]

    def restore(self, slot: int, start: int, stacks: list[torch.Tensor]) -> None:
        """Write what `copied` gave, of this cache or another, into positions from `start` on."""
        for same, stack in zip(self._alike(), stacks, strict=True):
            for tensor, own in zip(same, stack.unbind(), strict=True):
                tensor[slot, :, start : start + own.shape[-2]] = own

    @property
    def position_bytes(self) -> int:
        """What one position takes in all blocks that were written."""
        each = (*self.keys.values(), *self.values.values())
        return sum(t.shape[1] * t.shape[-1] * t.element_size() for t in each)

    def _alike(self) -> list[list[torch.Tensor]]:
        """All keys and values, those of one shape side by side."""
        alike: dict[torch.Size, list[torch.Tensor]] = {}
        for tensor in (*self.keys.values(), *self.values.values()):
            alike.setdefault(tensor.shape, []).append(tensor)
        return list(alike.values())

    def clear(self, slot: int) -> None:
        """Zero a slot: masked positions weigh nothing, but not where they are not numbers."""
        for tensor in (*self.keys.values(), *self.values.values()):
            tensor[slot].zero_()

    def release(self, slot: int) -> None:
        """Give the pages of a slot that no row has back to the system; they are zeros from now on.

        On a CPU alone, and but for a page that another slot has a part of.
        """
        for pages in self._pages:
            size = len(pages) // self.slots
            start = -(slot * size // -mmap.PAGESIZE) * mmap.PAGESIZE
            whole = (slot + 1) * size // mmap.PAGESIZE * mmap.PAGESIZE - start
            if whole > 0 and hasattr(mmap, "MADV_DONTNEED"):
                pages.madvise(mmap.MADV_DONTNEED, start, whole)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot to another."""
        for tensor in (*self.keys.values(), *self.values.values()):
            tensor[target, :, :length] = tensor[source, :, :length]

    def reorder(self, sources: list[int], starts: list[int], length: int) -> None:
        """Let every slot i hold what slot `sources[i]` held in positions `starts[i]` to `length`.

        What lies before `starts[i]` is the same in both already.
        """
        moved = [i for i, source in enumerate(sources) if source != i]
        whole, tails = [i for i in moved if not starts[i]], [i for i in moved if starts[i]]
        parts = [(slots, min(starts[i] for i in slots)) for slots in (whole, tails) if slots]
        for tensor in (*self.keys.values(), *self.values.values()):
            reordered = []  # all is read before anything is written
            for slots, start in parts:
                index = torch.tensor([sources[i] for i in slots], device=tensor.device)
                reordered.append(tensor[:, :, start:length].index_select(0, index))
            for (slots, start), values in zip(parts, reordered, strict=True):
                tensor[slots, :, start:length] = values

    def _reserve(self, block: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        if block not in self.keys:
            for store, like in ((self.keys, keys), (self.values, values)):
                size = (self.slots, like.shape[0], self.capacity, like.shape[-1])
                store[block] = self._zeros(size, like)

    def _zeros(self, size: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """Zeros of that size; on a CPU of pages that the system gives when they are written.

        Zeros, since masked positions weigh nothing, but not where they are not numbers.
        """
        if like.device.type != "cpu":
            return torch.zeros(size, dtype=like.dtype, device=like.device)
        count = math.prod(size)
        needed = count * like.element_size()
        try:
            pages = mmap.mmap(-1, needed, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"{self.slots:,} rows of {self.capacity:,} positions need {needed:,} bytes in each "
                f"block's keys and values, which the system does not give: {error}; take fewer rows"
            ) from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            pages.madvise(mmap.MADV_NOHUGEPAGE)  # a huge page would span the room of many positions
        self._pages.append(pages)
        return torch.frombuffer(pages, dtype=like.dtype, count=count).view(size)
