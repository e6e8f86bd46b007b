"""What the server allows and whom it serves."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from peftlab.errors import refusing

_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """The server's own limits; the batch's are the engine's (`peftlab.serve.Limits`).

    Attributes:
        base: the frozen model's own model name; None makes one from where it was loaded, with
            "-base" after it where an adapter has that one.
        api_keys: without any, everybody who reaches the port is served.
        admin_keys: needed to load, replace and unload adapters; without any, an API key will do.
        hosts: names under which the server may be called (the Host header), "*" for all. On
            loopback this keeps a web page from reaching it under a name of its own.
        body_bytes, body_seconds: of a request, and in how long it has to be sent.
        requests: most that are under way at a time. replies: most of one (prompts times `n`).
        seconds: until a request has to be answered, waiting included.
        shutdown_seconds: for what was begun when the server is told to stop.
        unread_pieces: pieces of a stream that wait for a client that does not read; one more ends
            the request. stuck_seconds: until the connection of such a client is cut off (Linux).
        max_tokens, temperature: of a request that does not say. 0 is greedy, as adaptations are
            measured.
        labels: adapters with series of their own in the metrics; the others are taken together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str | None = None
    api_keys: tuple[str, ...] = Field(default=(), repr=False)
    admin_keys: tuple[str, ...] = Field(default=(), repr=False)
    hosts: tuple[str, ...] = ("*",)
    body_bytes: _Count = 1 << 20
    body_seconds: _Seconds = 30
    requests: _Count = 1024
    replies: _Count = 64
    seconds: _Seconds = 300
    shutdown_seconds: _Seconds = 60
    unread_pieces: _Count = 1024
    stuck_seconds: _Seconds = 30
    max_tokens: _Count = 64
    temperature: float = Field(default=0, ge=0, le=2, allow_inf_nan=False)
    labels: int = Field(default=200, ge=0)

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Settings from a command line.

        Raises:
            InputError: a value that cannot be used.
        """
        with refusing():
            return cls(**given)
