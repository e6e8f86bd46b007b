"""Prompts that were read before: where an adaptation leaves the lower blocks alone, they are kept.

What a prompt leaves in the blocks below the lowest edited one is the same for every adaptation,
rate and seed that leaves them alone: the keys and values there, and what enters the edited block.
With both kept, reading the prompt again starts at that block.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from peftlab.frozen.batch import Batch
from peftlab.frozen.forward import ForwardContext, ForwardOptions
from peftlab.frozen.model import FrozenLM
from peftlab.generation.state import DecodingState
from peftlab.trunk import TrunkStore, number_format

# What enters the lowest edited block, [T, D]; then of each block below it keys and values, each
# [H_kv, T, hd].
Entry = list[torch.Tensor]


@dataclass(frozen=True)
class Reading:
    """Rows whose prompts can be read in one forward.

    Attributes:
        block: the lowest that their adaptations change; 0 where nothing can be kept.
        entries: by the row's id, of prompts that are kept; empty where none of these is.
    """

    rows: Sequence[DecodingState]
    block: int = 0
    entries: Mapping[int, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class KeptPrompts:
    """The prompts that a store holds for one model."""

    model: FrozenLM
    store: TrunkStore

    def readings(self, rows: Sequence[DecodingState]) -> list[Reading]:
        """The rows in groups that can be read in one forward."""
        fresh: dict[int, list[DecodingState]] = defaultdict(list)
        again: dict[int, list[DecodingState]] = defaultdict(list)
        entries: dict[int, Entry] = {}
        for row in rows:
            # What comes before a cue is kept by itself, whatever the blocks that are edited.
            block = 0 if row.begin else min(row.owner.lowest_block, self.model.shape.layers - 1)
            entry = self.store.get(self._key(row, block)) if block else None
            (fresh if entry is None else again)[block].append(row)
            if entry is not None:
                entries[id(row)] = entry
        groups = [Reading(members, block) for block, members in fresh.items()]
        return groups + [Reading(members, block, entries) for block, members in again.items()]

    def begin(
        self,
        batch: Batch,
        rows: Sequence[DecodingState],
        reading: Reading,
        options: ForwardOptions,
    ) -> ForwardOptions:
        """Before a batch of some of a reading's rows runs: let it start where their entries end."""
        if not reading.entries:
            return replace(options, keep_input_of=reading.block or None)
        assert options.cache is not None
        entries = [reading.entries[id(row)] for row in rows]
        for row, entry in zip(rows, entries, strict=True):
            for block, (keys, values) in enumerate(zip(entry[1::2], entry[2::2], strict=True)):
                options.cache.write(block, row.slot, row.past, keys, values)
        device = self.model.device
        states = torch.cat([entries[i][0].to(device) for i in batch.order])
        return replace(options, resume=(reading.block, states.unsqueeze(0)))

    def end(self, context: ForwardContext, rows: Sequence[DecodingState], reading: Reading) -> None:
        """After it has run: keep what rows that were read for the first time have left behind."""
        states, cache = context.kept_input, context.options.cache
        if states is None:
            return
        assert cache is not None
        for row, segment in zip(rows, context.batch.given_segments(), strict=True):
            entry = [states[0, segment.start : segment.stop].clone()]
            for block in range(reading.block):
                both = cache.read(block, row.slot, 1, row.past)
                entry += [own[0, :, row.past - segment.length :].clone() for own in both]
            self.store.put(self._key(row, reading.block), entry)

    def _key(self, row: DecodingState, block: int) -> str:
        number = number_format(self.model.device.type)
        tokens = f"{row.owner.lead} {tuple(row.prompt)}"
        told = f"{self.model.fingerprint} prompt {block} {number} {tokens}"
        return hashlib.sha256(told.encode()).hexdigest()[:32]
