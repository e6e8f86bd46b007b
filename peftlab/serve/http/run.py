"""Running the app: one socket, and an end that finishes what was begun."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from peftlab.errors import InputError
from peftlab.printable import printable
from peftlab.serve.http.served import Served

_BACKLOG = 2048


def run(app: FastAPI, host: str, port: int, ready: Callable[[str], None], log: str) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was begun.

    Args:
        port: 0 for any free one. ready: told the server's address once it answers.
        log: uvicorn's level: critical, error, warning, info, debug or trace.

    Raises:
        InputError: an address that cannot be bound.
    """
    state: Served = app.state.served
    bound = listening(host, port, state.settings.stuck_seconds)
    running = server(app, lambda: ready(_address(bound)), log)
    _log_printably()
    running.run(sockets=[bound])


def server(app: FastAPI, ready: Callable[[], None], log: str) -> uvicorn.Server:
    """What answers for an app, on sockets that are made elsewhere."""
    state: Served = app.state.served
    config = uvicorn.Config(
        app,
        http="h11",  # it limits the size of headers, which httptools does not
        ws="none",
        lifespan="on",
        log_level=log,
        access_log=log in ("info", "debug", "trace"),
        server_header=False,
        use_colors=False,  # its colours would be shown as control characters
        timeout_graceful_shutdown=math.ceil(state.settings.shutdown_seconds),
    )
    return _Server(config, ready)


class _Printable(logging.Formatter):
    """What is logged may quote files and requests, and must not steer a terminal."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return printable(self._inner.format(record), lines=True)


def _log_printably() -> None:
    """Let the server's and the engine's words be shown with control characters as such."""
    own = logging.getLogger("peftlab")
    own.handlers = own.handlers or [logging.StreamHandler()]
    for name in ("peftlab", "uvicorn", "uvicorn.access"):
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(_Printable(handler.formatter or logging.Formatter()))


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def listening(host: str, port: int, stuck_seconds: float) -> socket.socket:
    """A bound socket whose connections are cut off when their client stops reading for so long.

    Raises:
        InputError: it cannot be bound; says why.
    """
    check_port(port)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            bound.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(stuck_seconds * 1000)
            )
        bound.bind(address)
        bound.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot serve at {host!r}, port {port}: {error}") from error
    return bound


def check_port(port: int) -> None:
    """Refuse what is no port; the system would take it modulo 65,536.

    Raises:
        InputError: says what one is.
    """
    if not 0 <= port < 1 << 16:
        raise InputError(f"cannot serve at port {port}: 0 to 65535 was expected")


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    try:
        addresses = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return all(str(it[4][0]).startswith("127.") or it[4][0] == "::1" for it in addresses)


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
