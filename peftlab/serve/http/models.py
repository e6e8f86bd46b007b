"""`GET /v1/models`: the base and every adapter, each under its name."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from peftlab.serve.http.served import Served, served

router = APIRouter(tags=["models"])


class Model(BaseModel):
    """A model name that can be asked for.

    Attributes:
        parent: the base's name, for adapters. max_model_len: most tokens of prompt and reply.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "peftlab"
    parent: str | None
    max_model_len: int


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models")
async def models(state: Annotated[Served, Depends(served)]) -> Models:
    """The base first, then the adapters by name."""
    names = [it.name for it in state.library.adapters() if it.name != state.base]
    return Models(data=[_model(state, name) for name in (state.base, *names)])


@router.get("/v1/models/{name}")
async def model(name: str, state: Annotated[Served, Depends(served)]) -> Model:
    """One of them."""
    state.library.check(name)
    return _model(state, name)


def _model(state: Served, name: str) -> Model:
    return Model(
        id=name,
        created=state.since,
        parent=None if name == state.base else state.base,
        max_model_len=state.engine.capacity,
    )
