"""`GET /v1/models`: the base and every adapter, each under its name."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from peftlab.serve.http.served import Served, served
from peftlab.serve.library import Listed

router = APIRouter(tags=["models"])


class About(BaseModel):
    """What is known of an adapter; null is not known.

    Attributes:
        task: what it was trained for. trainable: numbers that were trained. bytes: of them.
        loaded: in memory now.
    """

    method: str | None
    task: str | None
    trainable: int | None
    bytes: int | None
    loaded: bool


class Model(BaseModel):
    """A model name that can be asked for.

    Attributes:
        parent: the base's name, for adapters. max_model_len: most tokens of prompt and reply.
        peftlab: of an adapter; OpenAI's API has nothing of the kind.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "peftlab"
    parent: str | None
    max_model_len: int
    peftlab: About | None


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models")
async def models(state: Annotated[Served, Depends(served)]) -> Models:
    """The base first, then the adapters by name."""
    known = {it.name: it for it in state.library.adapters()}
    base = known.pop(state.base)
    cards = await asyncio.to_thread(lambda: [_model(state, it) for it in (base, *known.values())])
    return Models(data=cards)


@router.get("/v1/models/{name}")
async def model(name: str, state: Annotated[Served, Depends(served)]) -> Model:
    """One of them."""
    state.library.check(name)
    adapter = next(it for it in state.library.adapters() if it.name == name)
    return await asyncio.to_thread(_model, state, adapter)


def _model(state: Served, it: Listed) -> Model:
    base = it.name == state.base
    return Model(
        id=it.name,
        created=state.since,
        parent=None if base else state.base,
        max_model_len=state.engine.capacity,
        peftlab=None if base else _about(state, it),
    )


def _about(state: Served, it: Listed) -> About:
    told = state.descriptions.of(it.folder)
    return About(
        method=it.method or told.method,
        task=told.task,
        trainable=told.trainable,
        bytes=told.bytes if it.size is None else it.size,
        loaded=it.version is not None,
    )
