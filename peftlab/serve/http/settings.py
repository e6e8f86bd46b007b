"""What the server allows and whom it serves."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from peftlab.errors import InputError, refusing

LONGEST = 1e6  # seconds: twelve days; clocks of the system do not take any number
_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)]


class Settings(BaseModel):
    """The server's own limits; the batch's are the engine's (`peftlab.serve.Limits`).

    Attributes:
        base: the frozen model's own model name; None makes one from where it was loaded, with
            "-base" after it where an adapter has that one.
        api_keys: without any, everybody who reaches the port is served. An empty or blank one is an
            error, and so is one that no client could send.
        admin_keys: needed to load, replace and unload adapters; without any, an API key will do.
        share_prompt_cache: let requests of one key go on from what those of another have read, who
            could tell by the time that takes which texts these were. False: each key has its own.
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
    share_prompt_cache: bool = False
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

    @field_validator("api_keys", "admin_keys")
    @classmethod
    def _are_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            check_key("an API key", key)
        return keys

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(host.strip() for host in hosts):
            raise InputError("the name of a host is empty; localhost or example.com was expected")
        return tuple(host.lower() for host in hosts)

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Settings from a command line.

        Raises:
            InputError: a value that cannot be used.
        """
        with refusing():
            return cls(**given)


def check_key(what: str, key: str) -> None:
    """Refuse what would open the server to everyone, or to nobody; the key itself is not shown.

    Raises:
        InputError: it is empty or blank, begins or ends with white space, or holds control
            characters, none of which a header can carry.
    """
    if not key.strip():
        raise InputError(
            f"{what} is {'blank' if key else 'empty'}; a secret was expected, or no key at all "
            "where everybody may be served"
        )
    if key != key.strip() or not key.isprintable():
        raise InputError(
            f"{what} holds control characters, or white space round it, which no client can send; "
            "take them out"
        )
