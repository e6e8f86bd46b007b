"""The engine's memory: key/value slots taken once, given to rows and taken back."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.bank import Bank
from peftlab.frozen.batch import Past
from peftlab.frozen.cache import KeyValueCache
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.packing import Row, pack
from peftlab.generation.session import begin, feed
from peftlab.generation.state import DecodingState
from peftlab.serve.prompt_cache import Stacks

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM


class Slots:
    """Preallocated keys and values; a row stays where it is, and the lowest free slot goes first.

    Args:
        count: most rows at a time. capacity: positions of each. limit: bytes that they may take.

    Raises:
        InputError: they would take more; says how many slots fit.
    """

    def __init__(self, model: FrozenLM, count: int, capacity: int, limit: int) -> None:
        self.model, self.count, self.capacity = model, count, capacity
        self.bytes = count * slot_bytes(model, capacity)
        if self.bytes > limit:
            fit = limit // slot_bytes(model, capacity)
            raise InputError(
                f"{count} slots of {capacity} positions take {self.bytes:,} bytes of keys and "
                f"values, and the limit is {limit:,}: {fit} slots would fit, or fewer positions"
            )
        self.cache = KeyValueCache(count, capacity)
        self.options = ForwardOptions(cache=self.cache, bank=Bank())
        self._free = list(range(count))
        with torch.no_grad():  # the cache takes its memory at its first use, in the model's format
            row = Row([0], past=Past(0, 0))
            self.model(pack([row], [Edits()], device=model.device), self.options)
        self._used: set[int] = set()  # since the last `release`

    @property
    def free(self) -> int:
        """How many rows can come in."""
        return len(self._free)

    @property
    def taken(self) -> int:
        """How many rows are in."""
        return self.count - len(self._free)

    def enter(self, rows: Sequence[DecodingState]) -> None:
        """Give each row a slot and write what its owner's rows start with; all of them, or none."""
        for number, row in enumerate(rows):
            try:
                self._enter(row)
            except Exception:
                for other in rows[:number]:
                    self.leave(other)
                raise

    def _enter(self, row: DecodingState) -> None:
        row.slot, row.past = heapq.heappop(self._free), 0
        self._used.add(row.slot)
        try:
            begin(self.model, self.cache, row)
        except Exception:
            self.leave(row, clear=True)
            raise

    def skip(self, row: DecodingState, pieces: list[Stacks]) -> int:
        """Let a row go on from its next tokens' keys and values, all before its cue or all after.

        Args:
            pieces: end to end, each of any number of tokens.

        Returns:
            how many tokens it need not read any more.
        """
        was_before, past = row.is_before_cue, row.past
        joined = [torch.cat(parts, -2) for parts in zip(*pieces, strict=True)]
        self.cache.restore(row.slot, past, joined)
        skipped = joined[0].shape[-2]
        row.past += skipped
        try:
            if was_before:
                begin(self.model, self.cache, row)
        except Exception:
            row.past = past  # it reads these tokens itself
            raise
        return skipped

    def leave(self, row: DecodingState, *, clear: bool = False) -> None:
        """Take a row's slot back; `clear` where it may hold what is not a number."""
        if clear:
            self.cache.clear(row.slot)
        heapq.heappush(self._free, row.slot)

    def release(self) -> None:
        """Give the system back what rows that have left had filled."""
        for slot in self._used.intersection(self._free):
            self.cache.release(slot)
        self._used.difference_update(self._free)

    @torch.no_grad()
    def check_base(self) -> None:
        """Run the bare base once; it raises what keeps it from running."""
        self.model(pack([Row([0])], [Edits()], device=self.model.device))

    def feed(
        self,
        rows: Sequence[DecodingState],
        inputs: Sequence[Sequence[int]],
        wanted: Sequence[int],
    ) -> torch.Tensor:
        """See `generate.session.feed`."""
        return feed(self.model, self.options, rows, inputs, wanted)


def slot_bytes(model: FrozenLM, capacity: int) -> int:
    """Bytes of one slot's keys and values in all blocks."""
    shape = model.shape
    number = torch.finfo(model.model.dtype).bits // 8
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * capacity * number
