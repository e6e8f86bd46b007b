"""`/v1/adapters`: what is there, and loading, replacing and unloading it while others are served.

An adapter comes from a subfolder of the adapters' folder and is named by that; no path is taken.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from peftlab.serve.http.errors import HttpError
from peftlab.serve.http.served import Served, served
from peftlab.serve.http.wire import Wire
from peftlab.serve.library import Listed

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])
State = Annotated[Served, Depends(served)]


class Adapter(BaseModel):
    """An adapter; what is null is known once it is in memory.

    Attributes:
        loaded: in memory now. version: counted from 1; replies that run keep theirs.
        bytes: that it takes in memory.
    """

    name: str
    object: Literal["adapter"] = "adapter"
    loaded: bool
    method: str | None
    version: int | None
    bytes: int | None


class Adapters(BaseModel):
    """All that are known."""

    object: Literal["list"] = "list"
    data: list[Adapter]


class Deleted(BaseModel):
    """An adapter that is known no more. Its folder stays."""

    name: str
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True


class LoadRequest(Wire):
    """folder: the subfolder to load from; the adapter's own name by default."""

    folder: str | None = None


@router.get("")
async def adapters(state: State) -> Adapters:
    """All known adapters by name."""
    listed = [it for it in state.library.adapters() if it.name != state.base]
    return Adapters(data=[_shown(it) for it in listed])


@router.post("/rescan")
async def rescan(state: State) -> Adapters:
    """Look for adapters that have come into the folder."""
    await asyncio.to_thread(state.library.rescan)
    return await adapters(state)


@router.get("/{name}")
async def adapter(name: str, state: State) -> Adapter:
    """One adapter."""
    _not_base(state, name)
    state.library.check(name)
    return _shown(next(it for it in state.library.adapters() if it.name == name))


@router.put("/{name}")
async def load(name: str, state: State, asked: LoadRequest | None = None) -> Adapter:
    """Load an adapter, or put a new version in its place; answers once it is ready.

    One that cannot be used, for another base, damaged or pickled, is refused with all reasons, and
    the version before it stays.
    """
    _not_base(state, name)
    wanted = (asked and asked.folder) or name
    folder = await asyncio.to_thread(state.library.subfolder, wanted)
    return _shown(await asyncio.wrap_future(state.library.load(name, folder)))


@router.delete("/{name}")
async def unload(name: str, state: State) -> Deleted:
    """Forget an adapter; its replies that run come to their ends."""
    _not_base(state, name)
    state.library.unload(name)
    return Deleted(name=name)


def _not_base(state: Served, name: str) -> None:
    if name == state.base:
        raise HttpError(400, f"{name!r} is the base itself, which has no adapter", param="name")


def _shown(it: Listed) -> Adapter:
    return Adapter(
        name=it.name,
        loaded=it.version is not None,
        method=it.method,
        version=it.version,
        bytes=it.size,
    )
