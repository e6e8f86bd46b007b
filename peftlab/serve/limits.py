"""What an engine allows, and what it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from peftlab.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an engine allows.

    Attributes:
        slots: most rows of the batch.
        capacity: most positions of a row (an adapter's prefix, prompt, reply); None means the
            model's context.
        cache_bytes: most bytes of keys and values; `slots × capacity` positions are taken at once.
        prompt_cache_bytes: most bytes of keys and values that are kept of prompts and replies, for
            what begins alike, beside `cache_bytes`; 0 keeps none.
        prefill_tokens: most prompt tokens read in one step, over all rows.
        prompt_tokens: most of a prompt; None means as many as a row has room for.
        max_new_tokens: the longest reply that may be asked for.
        queue: most waiting requests. queue_share: most of one adapter; None means half of them.
    """

    slots: int = 16
    capacity: int | None = None
    cache_bytes: int = 8 << 30
    prompt_cache_bytes: int = 1 << 30
    prefill_tokens: int = 256
    prompt_tokens: int | None = None
    max_new_tokens: int = 1024
    queue: int = 256
    queue_share: int | None = None

    def __post_init__(self) -> None:
        counts = ("slots", "capacity", "prefill_tokens", "prompt_tokens", "max_new_tokens", "queue")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; at least 1 was expected")
        if (kept := self.prompt_cache_bytes) < 0:
            raise InputError(f"prompt_cache_bytes is {kept}; at least 0 was expected")


@dataclass(frozen=True)
class Reused:
    """What the cache of prompts has done, and what it holds.

    Attributes:
        queries: requests that looked. hits: those that found a start of theirs known.
        tokens: that were not read again. bytes: of keys and values, now.
    """

    queries: int = 0
    hits: int = 0
    tokens: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Stats:
    """The engine at this moment, and what it has done since it was made.

    Attributes:
        waiting: requests now. running: rows of the batch, one a request, of a mixture one an
            expert. slots: most of them.
        steps, prompt_tokens, tokens: done so far; prompt tokens as read, without prepared starts
            and known ones.
        finished: replies by (adapter, how they ended).
        cache_bytes: of the slots' keys and values. reused: what begins alike.
    """

    waiting: int
    running: int
    slots: int
    steps: int
    prompt_tokens: int
    tokens: int
    finished: dict[tuple[str, str], int]
    cache_bytes: int
    reused: Reused
