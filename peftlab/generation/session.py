"""A running batch: rows join with their prompt, advance by a token a step, and leave when done.

Slots of live rows are always 0…R−1: a row that leaves gives its slot to the last one, so the cache
is read in place and finished rows cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from peftlab.errors import InputError
from peftlab.frozen.bank import Bank
from peftlab.frozen.batch import Batch
from peftlab.frozen.cache import KeyValueCache
from peftlab.frozen.forward import ForwardContext, ForwardOptions
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from peftlab.generation.kept import KeptPrompts, Reading
from peftlab.generation.state import DecodingState
from peftlab.pasts import read
from peftlab.token_limits import token_chunks

_PREFILL_TOKENS = 2048


class Session:
    """Rows of any adaptations decoding together.

    Args:
        slots: most rows at a time. capacity: most positions of a row, prefix and output included.
        kept: prompts that were read before, and room for more.
    """

    def __init__(
        self, model: FrozenLM, slots: int, capacity: int, kept: KeptPrompts | None = None
    ) -> None:
        self.model, self.slots, self.kept = model, slots, kept
        self.cache = KeyValueCache(slots, capacity)
        self.options = ForwardOptions(cache=self.cache, bank=Bank())
        self.live: list[DecodingState] = []

    @property
    def free(self) -> int:
        """How many rows can join now."""
        return self.slots - len(self.live)

    @torch.no_grad()
    def join(self, rows: Sequence[DecodingState]) -> torch.Tensor:
        """Take rows in; returns the logits [R, V] of the token that follows each one's prompt.

        Raises:
            InputError: more rows than free slots, or a row that exceeds the capacity.
        """
        if len(rows) > self.free:
            raise InputError(f"{len(rows)} rows want to join, but only {self.free} slots are free")
        for row in rows:
            if row.length > self.cache.capacity:
                raise InputError(
                    f"a prompt of {row.length} positions exceeds a slot's {self.cache.capacity}"
                )
            row.slot, row.past = len(self.live), 0
            self.live.append(row)
            begin(self.model, self.cache, row)
        self._read_sources([row for row in rows if row.is_before_cue])
        logits = {id(row): own for row, own in self._read(rows)}
        return torch.stack([logits[id(row)] for row in rows])

    def _read_sources(self, rows: Sequence[DecodingState]) -> None:
        """What comes before the cue, by the bare base, or from what is kept of it."""
        store = None if self.kept is None else self.kept.store
        pasts = read(self.model, [tuple(row.prompt[: row.begin]) for row in rows], store)
        for row, past in zip(rows, pasts, strict=True):
            for block, (keys, values) in enumerate(past.keys_values):
                self.cache.write(block, row.slot, 0, keys, values)
            row.past = past.length
            begin(self.model, self.cache, row)

    def _read(self, rows: Sequence[DecodingState]) -> Iterator[tuple[DecodingState, torch.Tensor]]:
        """Each row, and the logits [V] of what follows its prompt."""
        kept = self.kept
        for reading in [Reading(rows)] if kept is None else kept.readings(rows):
            sizes = [len(row.prompt) - row.begin for row in reading.rows]
            for chunk in token_chunks(reading.rows, sizes, _PREFILL_TOKENS):
                batch = packed(self.model, chunk, [row.prompt[row.begin :] for row in chunk])
                options = self.options
                if kept is not None:
                    options = kept.begin(batch, chunk, reading, options)
                context = ForwardContext(batch, options)
                logits = advance(self.model, context, chunk)
                if kept is not None:
                    kept.end(context, chunk, reading)
                yield from zip(chunk, logits, strict=True)

    @torch.no_grad()
    def step(self, rows: Sequence[DecodingState]) -> torch.Tensor:
        """Feed each row its last token; returns the logits [R, V] of the next."""
        inputs = [[row.tokens[-1]] for row in rows]
        return feed(self.model, self.options, rows, inputs)

    def leave(self, row: DecodingState) -> None:
        """Free a row's slot; the last row moves into it."""
        last = self.live.pop()
        if last is not row:
            self.cache.move(last.slot, row.slot, last.past)
            last.slot = row.slot
            self.live[row.slot] = last

    def reorder(self, rows: Sequence[DecodingState], sources: Sequence[int]) -> None:
        """Let row i continue from what row `sources[i]` of all live rows has read (beam search)."""
        prompts = [row.prompt for row in self.live]
        # Beams of one prompt differ in what came after it alone.
        starts = [
            row.length if slot < len(prompts) and prompts[slot] is row.prompt else 0
            for slot, row in enumerate(rows)
        ]
        self.cache.reorder(list(sources), starts, max(row.past for row in rows))
        self.live = list(rows)


def begin(model: FrozenLM, cache: KeyValueCache, row: DecodingState) -> None:
    """Write what the owner's tokens of a row start with, once these are next."""
    if row.is_before_cue:
        return
    at_cue = row.owner.edits.begin == "cue"
    for block, kv in row.owner.prefix.items():
        keys = model.rotary.turned(block, kv.keys, row.past) if at_cue else kv.keys
        cache.write(block, row.slot, row.past, keys, kv.values)
    row.past += row.owner.prefix_length


@torch.no_grad()
def feed(
    model: FrozenLM,
    options: ForwardOptions,
    rows: Sequence[DecodingState],
    inputs: Sequence[Sequence[int]],
    wanted: Sequence[int] | None = None,
) -> torch.Tensor:
    """Let each row read its next tokens, many or one, all in one forward.

    A row's tokens lie all before its cue, or all after it.

    Args:
        wanted: after how many of a row's last tokens logits are wanted; by default after one.

    Returns:
        the logits [K, V] of what follows these, row by row.
    """
    return advance(model, ForwardContext(packed(model, rows, inputs, wanted), options), rows)


def packed(
    model: FrozenLM,
    rows: Sequence[DecodingState],
    inputs: Sequence[Sequence[int]],
    wanted: Sequence[int] | None = None,
) -> Batch:
    """The batch of `feed`."""
    owners = list({id(row.edits): row.edits for row in rows}.values())
    index = {id(edits): i for i, edits in enumerate(owners)}
    counts = wanted or [1] * len(rows)
    keep = [len(ids) - count for ids, count in zip(inputs, counts, strict=True)]
    return pack(
        [
            Row(ids, index[id(row.edits)], first, row.continued)
            for row, ids, first in zip(rows, inputs, keep, strict=True)
        ],
        owners,
        device=model.device,
    )


def advance(
    model: FrozenLM, context: ForwardContext, rows: Sequence[DecodingState]
) -> torch.Tensor:
    """Run a batch of these rows; returns the logits [K, V] in their order."""
    logits, batch = model.run(context), context.batch
    for row, segment in zip(rows, batch.given_segments(), strict=True):
        was_before = row.is_before_cue
        row.past += segment.length
        if was_before:
            assert context.options.cache is not None
            begin(model, context.options.cache, row)
    given = batch.order == list(range(len(rows)))
    return logits if given else torch.cat(batch.split_kept(logits))
