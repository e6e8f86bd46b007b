"""`GET /health` for whoever watches the process, `GET /metrics` for Prometheus."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from peftlab.serve.http.errors import HttpError
from peftlab.serve.http.served import Served, served

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """It serves. waiting, running: requests now."""

    status: Literal["ok"] = "ok"
    waiting: int
    running: int


@router.get("/health")
async def health(state: Annotated[Served, Depends(served)]) -> Health:
    """200 while requests are answered, 503 while it starts or stops, or when the base fails."""
    if not state.engine.alive:
        raise HttpError(503, "the engine takes no requests", kind="server_error", code="closing")
    if failure := state.engine.failure:
        said = f"the base itself fails: {failure}"
        raise HttpError(503, said, kind="server_error", code="failed")
    stats = state.engine.stats()
    return Health(waiting=stats.waiting, running=stats.running)


@router.get("/metrics", response_class=Response)
async def metrics(state: Annotated[Served, Depends(served)]) -> Response:
    """All numbers in Prometheus' text format."""
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
