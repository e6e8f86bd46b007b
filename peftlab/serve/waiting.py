"""The queue: bounded, and fair between adapters, which take turns however much each has asked."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from peftlab.serve.errors import QueueFull


class _Named(Protocol):
    @property
    def adapter(self) -> str: ...


T = TypeVar("T", bound=_Named)


class FairQueue(Generic[T]):
    """First come first served within an adapter, round-robin between adapters.

    Args:
        limit: most waiting requests. share: most of one adapter, so that no task shuts out others.
    """

    def __init__(self, limit: int, share: int) -> None:
        self.limit, self.share = limit, share
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        for items in self._waiting.values():
            yield from items

    @property
    def adapters(self) -> list[str]:
        """The adapters that are waited for, in the order of their turns."""
        return list(self._waiting)

    def count(self, adapter: str) -> int:
        """How many requests wait for an adapter."""
        return len(self._waiting.get(adapter, ()))

    def put(self, item: T) -> None:
        """Queue a request.

        Raises:
            QueueFull: says which of the two limits is reached.
        """
        if self._size >= self.limit:
            raise QueueFull(f"{self._size} requests are waiting, which is the limit; try later")
        if self.count(item.adapter) >= self.share:
            raise QueueFull(
                f"{self.share} requests are waiting for {item.adapter!r}, which is the limit of "
                "one adapter; try later"
            )
        self._waiting.setdefault(item.adapter, deque()).append(item)
        self._size += 1

    def next(self, ready: Callable[[str], bool]) -> str | None:
        """The adapter whose turn it is, of those that are ready."""
        return next((name for name in self._waiting if ready(name)), None)

    def take(self, name: str) -> T:
        """The next request of an adapter, whose next turn then comes last."""
        item = self._waiting[name].popleft()
        self._size -= 1
        if self._waiting[name]:
            self._waiting.move_to_end(name)
        else:
            del self._waiting[name]
        return item

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out all requests of a kind."""
        removed = [item for item in self if unwanted(item)]
        if removed:
            gone = {id(item) for item in removed}
            for name, items in list(self._waiting.items()):
                kept = deque(item for item in items if id(item) not in gone)
                if kept:
                    self._waiting[name] = kept
                else:
                    del self._waiting[name]
            self._size -= len(removed)
        return removed
