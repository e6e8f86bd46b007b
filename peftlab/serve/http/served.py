"""What all routes share: the engine, its limits, and its numbers."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request as Http

from peftlab.errors import InputError
from peftlab.methods.hard_prompt import unadapted
from peftlab.serve.adapters_folder import as_name, check_name
from peftlab.serve.described import Descriptions
from peftlab.serve.engine import Engine
from peftlab.serve.http.metrics import Metrics
from peftlab.serve.http.settings import Settings
from peftlab.serve.library import Library

TENANT = "peftlab.tenant"
"""Where a request's scope says on whose account it is; never a key itself."""

_LONGEST_WAIT = 60  # seconds; OpenAI's client passes over what is longer


@dataclass
class Served:
    """One server's state.

    Attributes:
        base: the frozen model's own model name. loading: done once it can be asked for.
        descriptions: what adapters' folders tell. since: when the server was made (Unix time).
        long_prompts: the thread that encodes them, one after the other.
    """

    engine: Engine
    settings: Settings
    metrics: Metrics
    base: str
    descriptions: Descriptions
    since: int = field(default_factory=lambda: int(time.time()))
    long_prompts: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "peftlab-long-prompts")
    )

    @classmethod
    def make(cls, engine: Engine, settings: Settings) -> Served:
        """Enter the bare model into the library, under a name of its own.

        Raises:
            InputError: a name that cannot be one, or that an adapter has; a base whose tokenizer
                has no token that ends a reply.
        """
        taken = {it.name for it in engine.library.adapters()}
        base = settings.base or as_name(engine.model.name, "base")
        if settings.base is None and base in taken:
            base += "-base"
        check_name(base)
        if base in taken:
            raise InputError(
                f"{base!r} is the base's model name and an adapter's; give the base another one"
            )
        asked = engine.library.load(base, unadapted(engine.model))
        while not asked.done() and engine.library.load_one():
            pass
        asked.result()
        told = Descriptions(engine.model.shape)
        return cls(engine, settings, Metrics(engine, settings.labels), base, told)

    @property
    def library(self) -> Library:
        """The engine's adapters."""
        return self.engine.library

    @property
    def tokenizer(self) -> Any:
        """The base's."""
        return self.engine.model.tokenizer

    def retry_after(self) -> int:
        """Whole seconds until a place is likely to be free."""
        stats = self.engine.stats()
        turns = (stats.waiting + stats.running) / stats.slots
        return min(_LONGEST_WAIT, max(1, math.ceil(turns * self.metrics.usual_seconds)))


def served(http: Http) -> Served:
    """The state of the app that a request has come to."""
    state: Served = http.app.state.served
    return state
