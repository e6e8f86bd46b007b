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
        prefill_tokens: most prompt tokens read in one step, over all rows.
        prompt_tokens: most of a prompt; None means as many as a row has room for.
        max_new_tokens: the longest reply that may be asked for.
        queue: most waiting requests. queue_share: most of one adapter; None means half of them.
    """

    slots: int = 16
    capacity: int | None = None
    cache_bytes: int = 8 << 30
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


@dataclass(frozen=True)
class Stats:
    """The engine at this moment, and what it has done since it was made.

    Attributes:
        waiting, running: requests now. slots: most that can run.
        steps, prompt_tokens, tokens: done so far; prompt tokens as read, without prepared starts.
        finished: replies by (adapter, how they ended).
        cache_bytes: of keys and values.
    """

    waiting: int
    running: int
    slots: int
    steps: int
    prompt_tokens: int
    tokens: int
    finished: dict[tuple[str, str], int]
    cache_bytes: int
