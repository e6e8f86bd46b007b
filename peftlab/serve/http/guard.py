"""What stands before every route: the caller's name and key, the body's size, and how many come.

Nothing of a body is read from whoever has no key.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peftlab.serve.http.errors import HttpError, too_many
from peftlab.serve.http.served import TENANT, Served

_OPEN = ("/health", "/", "/favicon.ico")
_OPEN_BELOW = "/playground/"
_MANAGED = "/v1/adapters"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PATIENCE = 2.0  # seconds of a too large body that are read and thrown away before the answer


class Guard:
    """Refuses, or passes on with the whole body at hand."""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        self.app, self.served, self._under_way = app, served, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, counted)
        except HttpError as error:
            await error.response()(scope, receive, counted)
        finally:
            path = getattr(scope.get("route"), "path", "_other")
            method = scope["method"] if path != "_other" else "_other"
            self.served.metrics.answered(path, method, status)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self.served.settings
        _check_host(scope, settings.hosts)
        scope[TENANT] = self._check_key(scope)
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        if self._under_way >= settings.requests:
            raise too_many(
                f"{self._under_way} requests are under way, which is the limit; try later",
                self.served.retry_after(),
            )
        self._under_way += 1
        try:
            body = await self._body(scope, receive)
            await self.app(scope, _again(body, receive), send)
        finally:
            self._under_way -= 1

    def _check_key(self, scope: Scope) -> str:
        """Whose request it is, for the cache of prompts: one for all where there is one key."""
        settings, path = self.served.settings, scope["path"]
        managed = path.startswith(_MANAGED) and scope["method"] not in ("GET", "HEAD")
        known = (*settings.api_keys, *settings.admin_keys)
        if managed:
            allowed = settings.admin_keys or settings.api_keys
        else:
            allowed = known if settings.api_keys else ()
        if not allowed or path in _OPEN or path.startswith(_OPEN_BELOW):
            return ""
        kind, _, rest = _header(scope, b"authorization").partition(" ")
        given = rest.strip() if kind.lower() == "bearer" else ""
        which = _place(given, known)
        if which is None:
            raise HttpError(
                401,
                "an API key is needed: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if _place(given, allowed) is None:
            raise HttpError(403, "this key may not manage adapters", code="forbidden")
        return "" if settings.share_prompt_cache or len(set(known)) == 1 else f"key {which}"

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, if it comes in time and is no larger than allowed."""
        settings = self.served.settings
        if int(_header(scope, b"content-length") or 0) > settings.body_bytes:
            await _throw_away(receive)
            raise _too_large(settings.body_bytes)
        body = bytearray()
        try:
            async with asyncio.timeout(settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HttpError(400, "the client left before it had sent its request")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > settings.body_bytes:
                        if more:
                            await _throw_away(receive)
                        raise _too_large(settings.body_bytes)
                    if not more:
                        break
        except TimeoutError:
            raise HttpError(
                408, f"the body did not come within {settings.body_seconds:g} s", code="timeout"
            ) from None
        _check_unicode(body)
        return bytes(body)


def _check_unicode(body: bytearray) -> None:
    """JSON can write halves of characters, which no text can hold."""
    if _SURROGATE.search(body) is None:
        return
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise HttpError(
            400, f"the body holds half of a character, {half}; Unicode text was expected"
        ) from error
    except (ValueError, RecursionError):
        return  # no JSON at all: whoever parses it says so


def _check_host(scope: Scope, hosts: Sequence[str]) -> None:
    if "*" in hosts:
        return
    host = _header(scope, b"host")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name.lower() not in hosts:
        raise HttpError(
            421, f"this server is not {name[:100]!r}; name it with --allow-host to serve it"
        )


def _header(scope: Scope, name: bytes) -> str:
    header = next((value for key, value in scope["headers"] if key == name), b"")
    return str(header.decode("latin-1"))


def _place(given: str, keys: Sequence[str]) -> int | None:
    """Which key it is, compared in a time that tells nothing of the keys; None: none of them."""
    data = given.encode("latin-1", "replace")
    same = [hmac.compare_digest(data, key.encode()) for key in keys]
    return same.index(True) if data and any(same) else None  # no key is never a right one


def _too_large(most: int) -> HttpError:
    return HttpError(
        413, f"the body is larger than {most:,} bytes, which is the limit", code="too_large"
    )


async def _throw_away(receive: Receive) -> None:
    """Read on for a moment: a client that is still sending would not hear the answer."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass


def _again(body: bytes, receive: Receive) -> Receive:
    """The body as one message, and then whatever comes."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
