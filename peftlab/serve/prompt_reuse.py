"""Rows go on from what others have read: their slots filled from the cache of prompts, and it
from them.

Before each step a row that still reads looks whether more of its start is known than it has, so
that of many rows over one document the first one reads it and the others wait: to read what is
being read would be slower for all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch

from peftlab.serve.limits import Reused
from peftlab.serve.prompt_cache import Holder, PromptCache, Stacks
from peftlab.serve.running import RunningRow
from peftlab.serve.slots import Slots

_WORTH_WAITING = 16  # tokens: fewer are read in less time than is waited for them
_WORTH_ENTERING = 64  # tokens at a time, while a prompt is being read

_log = logging.getLogger(__name__)


class PromptReuse:
    """Between the rows' slots and one cache.

    Args:
        limit: most bytes that the cache may hold; 0: nothing is kept or known.
    """

    def __init__(self, slots: Slots, limit: int) -> None:
        self._slots = slots
        self._cache = PromptCache(limit, slots.cache.position_bytes)
        self._served: Collection[str] = ()
        self._queries = self._hits = self._tokens = 0

    @property
    def done(self) -> Reused:
        """What it has done and holds."""
        return Reused(self._queries, self._hits, self._tokens, self._cache.bytes)

    def retain(self, fingerprints: Collection[str]) -> None:
        """Keep nothing of adapters but these, from now on."""
        self._served = fingerprints
        self._cache.retain(fingerprints)

    def clear(self) -> None:
        """Give up what is kept, where memory is wanted."""
        self._cache.clear()

    def unread(self, rows: Sequence[RunningRow]) -> list[int]:
        """How many prompt tokens each row has to read now.

        Rows whose start is known better than they have read it go on from there; those whose next
        tokens a row before them is reading wait for these.
        """
        if not self._cache.limit:
            return [row.unread for row in rows]
        for row in rows:
            self._quietly(partial(self._look, row))
        waiting = _waiting(rows)
        return [0 if row in waiting else row.unread for row in rows]

    def keep_prompts(self, rows: Sequence[RunningRow]) -> None:
        """Enter what rows have read of their prompts, for others that begin alike."""
        for row in rows:
            last = min(row.common, len(row.ids))
            have = min(row.common_read, last)
            if have - row.entered >= (_WORTH_ENTERING if have < last else 1):
                self._quietly(partial(self._enter, row, have))

    def keep(self, row: RunningRow) -> None:
        """Enter all that a row has read or produced, as it leaves."""
        if row.common_read > row.entered:
            self._quietly(partial(self._enter, row, row.common_read))

    def _look(self, row: RunningRow) -> None:
        self._queries += not row.looked
        row.looked = True
        have, most = row.read, row.shareable
        if have >= most:
            return
        pieces = self._cache.match(row.holder, row.ids[:most], have)
        if pieces:
            skipped = self._slots.skip(row.row, pieces)
            self._hits += not row.cached
            self._tokens += skipped
            row.skipped(skipped)
            row.entered = have + skipped

    def _enter(self, row: RunningRow, count: int) -> None:
        row.entered = count  # whether there is room for it or not, nobody waits for it any more
        name = row.holder.fingerprint
        if self._cache.limit and (not name or name in self._served):
            tokens = (*row.ids, *row.row.tokens)[:count]
            self._cache.put(row.holder, tokens, partial(self._copied, row))

    @torch.no_grad()
    def _copied(self, row: RunningRow, first: int, stop: int) -> Stacks | None:
        """A row's keys and values, unless some are not numbers: those would reach other rows."""
        stacks = self._slots.cache.copied(row.row.slot, row.first + first, row.first + stop)
        return stacks if all(bool(stack.isfinite().all()) for stack in stacks) else None

    def _quietly(self, work: Callable[[], object]) -> None:
        """What is kept saves time alone: where that fails, e.g. for lack of memory, nothing is."""
        try:
            work()
        except Exception:
            _log.exception("the cache of prompts failed; it begins anew, empty")
            self._cache.clear()


def _waiting(rows: Sequence[RunningRow]) -> set[RunningRow]:
    """Those whose next tokens another row will have entered soon.

    Of rows that begin alike the one with the least to read goes first: a short prompt must not wait
    for a long one that gets no part of the step.
    """
    waiting, reading = set[RunningRow](), set[tuple[Holder, tuple[int, ...]]]()
    for row in sorted(rows, key=lambda row: row.unread):
        ahead = row.entered + _WORTH_WAITING
        if row.read < row.shareable >= ahead:
            start = row.holder, row.ids[:ahead]
            if start in reading:
                waiting.add(row)
            reading.add(start)
    return waiting
