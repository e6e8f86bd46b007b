"""What a server gives back to the system after requests have used it.

Texts of hundreds of kilobytes take hundreds of megabytes while they are cut into tokens, and
`tune_allocator` lets malloc keep what is freed, in every thread's arena. Rows leave the pages of
their keys and values filled. Without this a server stays at the most that it ever held.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from peftlab.measure import held
from peftlab.measure.allocator import trim

EVERY = 5.0  # seconds between looks
# Bytes of growth that are worth a trim, which takes some milliseconds.
_WORTH_A_PAUSE, _WORTH_IT = 64 << 20, 1 << 20


class Trimmer:
    """Looks now and then at what the process holds, and has freed memory handed back.

    Args:
        release: frees what is in no use before malloc hands back its own.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self._release, self._next = release, time.monotonic() + EVERY
        self._least = 0  # bytes held after the last trim, or since

    def look(self, *, idle: bool) -> None:
        """Trim where memory has grown since the last time; returns at once between looks.

        Args:
            idle: nobody waits for it, so less growth is enough.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        own = _own()
        if own > self._least + (_WORTH_IT if idle else _WORTH_A_PAUSE):
            self._release()
            trim()
            own = _own()
            self._least = own
        self._least = min(self._least, own)


def _own() -> int:
    return held(torch.device("cpu"))
