"""What a server gives back to the system after requests have used it.

Texts of hundreds of kilobytes take hundreds of megabytes while they are cut into tokens, and
`tune_allocator` lets malloc keep what is freed, in every thread's arena. Rows leave the pages of
their keys and values filled. Without this a server stays at the most that it ever held.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from peftlab.measure.allocator import trim

EVERY = 10.0  # seconds; a trim takes some milliseconds, and what was handed back is filled anew


class Trimmer:
    """Has freed memory handed back now and then.

    Not by how much has grown: memory that is freed after a look shows no growth at the next.

    Args:
        release: frees what is in no use before malloc hands back its own.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self._release, self._next = release, time.monotonic() + EVERY

    def look(self) -> None:
        """Do so where it is time."""
        if time.monotonic() < self._next:
            return
        self._release()
        trim()
        self._next = time.monotonic() + EVERY
