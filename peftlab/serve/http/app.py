"""The app: routes over one engine, which starts and stops with it."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from peftlab.serve.engine import Engine
from peftlab.serve.http import adapters, chat, completions, errors, health, models
from peftlab.serve.http.guard import Guard
from peftlab.serve.http.served import Served
from peftlab.serve.http.settings import Settings
from peftlab.version import __version__

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": errors.ErrorBody, "description": words}
    for status, words in {
        400: "The request cannot be used; says why.",
        401: "An API key is missing or unknown.",
        403: "The key may not do this.",
        404: "No adapter has this name; the nearest is told.",
        408: "The body did not come in time.",
        413: "The body is too large.",
        421: "The server is not the one that was called.",
        429: "Too many requests wait; Retry-After says when to try again.",
        500: "The server failed.",
        503: "The server is stopping.",
        504: "There was no whole reply in time.",
    }.items()
}


def create_app(engine: Engine, settings: Settings | None = None) -> FastAPI:
    """An app that serves an engine's adapters, and its base under a name of its own.

    The engine starts with the app and is drained when it stops.

    Raises:
        InputError: a base that cannot be served, see `Served.make`.
    """
    state = Served.make(engine, settings or Settings())
    app = _App(
        title="peftlab", version=__version__, lifespan=_lifespan, docs_url=None,
        redoc_url=None, redirect_slashes=False, responses=_REFUSALS,
    )  # fmt: skip
    app.state.served = state
    app.add_middleware(Guard, served=state)
    errors.install(app)
    for part in (completions, chat, models, adapters, health):
        app.include_router(part.router)
    if importlib.util.find_spec("peftlab.serve.http.playground") is not None:
        from peftlab.serve.http import playground

        playground.mount(app)
    return app


class _App(FastAPI):
    """Describes what is really answered: bad input is 400, and keys are bearer tokens."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description."""
        if self.openapi_schema is None:
            document = super().openapi()
            for operation in (it for path in document["paths"].values() for it in path.values()):
                operation["responses"].pop("422", None)
            parts = document.setdefault("components", {})
            for name in ("HTTPValidationError", "ValidationError"):
                parts.get("schemas", {}).pop(name, None)
            if self.state.served.settings.api_keys:
                parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                document["security"] = [{"key": []}]
        return self.openapi_schema or {}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: Served = app.state.served
    state.engine.start()
    yield
    await asyncio.to_thread(state.engine.stop, timeout=state.settings.shutdown_seconds)
    state.long_prompts.shutdown(wait=False, cancel_futures=True)
