"""Adapters under names, loaded, replaced and unloaded while others are being served.

Thousands may lie in a folder; those used last are kept in memory, up to a limit in bytes. Files are
read, checked and turned into edits in a thread of its own. What needs the model, the short run of a
soft prompt, is left to the engine between two steps (`prepare_one`). Rows hold the version that
they started with, so replacing or unloading an adapter leaves them alone.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import InputError, PeftlabError, nearest
from peftlab.export import open_adaptation
from peftlab.methods.adaptation import Adaptation
from peftlab.serve.adapters_folder import AdaptersFolder, check_name
from peftlab.serve.errors import Failed, RefusedAdapter, UnknownAdapter
from peftlab.serve.loaded import LoadedAdapter

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

_OF_STRANGE_FILES = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """An adapter as `Library.adapters` shows it; method, version and size of those in memory."""

    name: str
    folder: Path | None
    method: str | None = None
    version: int | None = None
    size: int | None = None


@dataclass
class _Load:
    name: str
    source: Path | Adaptation
    asked: Future[Listed] | None = None


class Library:
    """The adapters of one model.

    Args:
        folder: its subfolders that hold an adaptation, ours or PEFT's, are known under their names.
        memory: most bytes of adapters kept in memory; those with rows running are not counted once
            they are dropped, so the engine's slots bound what comes on top.
    """

    def __init__(
        self, model: FrozenLM, folder: Path | str | None = None, *, memory: int = 4 << 30
    ) -> None:
        self.model, self.memory = model, memory
        self.folder = None if folder is None else Path(folder)
        self._folder = None if self.folder is None else AdaptersFolder(self.folder)
        self.changed: Callable[[], None] = lambda: None  # told after each load
        self._lock = threading.Condition()
        self._known: dict[str, Path | Adaptation] = {}
        self._loaded: OrderedDict[str, LoadedAdapter] = (
            OrderedDict()
        )  # the least recently used first
        self._versions: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._fingerprints: dict[str, frozenset[str]] = {}
        self._failed: dict[str, PeftlabError] = {}
        self._asked: deque[_Load] = deque()
        self._wanted: list[str] = []
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.rescan()

    # What people ask for.

    def rescan(self) -> None:
        """Look for adapters that have come into the folder."""
        present = {} if self._folder is None else self._folder.adapters()
        with self._lock:
            self._known |= present

    def adapters(self) -> list[Listed]:
        """All known adapters by name."""
        with self._lock:
            return [self._listed(name) for name in sorted(self._known)]

    def load(self, name: str, source: Path | Adaptation | None = None) -> Future[Listed]:
        """Read an adapter now; one of the same name is replaced once the new one is ready.

        Args:
            source: where it lies, wherever that is, or the adaptation itself; None means the
                subfolder of that name. Names from outside belong into `name` alone: they cannot
                leave the library's folder.

        Returns:
            a future; it raises RefusedAdapter with the reasons that `export.open_adaptation` or
            the limit of memory gives, and the old version then stays.

        Raises:
            InputError: a name that is none, or no such subfolder.
        """
        check_name(name)
        load = _Load(name, self.subfolder(name) if source is None else source, Future())
        with self._lock:
            self._asked.append(load)
            self._lock.notify_all()
        assert load.asked is not None
        return load.asked

    def unload(self, name: str) -> None:
        """Forget an adapter; its rows that run end as they would have.

        Raises:
            UnknownAdapter: there is none of this name.
        """
        with self._lock:
            self.check(name)
            del self._known[name]
            self._loaded.pop(name, None)
            self._failed.pop(name, None)
            self._fingerprints.pop(name, None)
        self.changed()

    def check(self, name: str) -> None:
        """Refuse a name that no adapter has.

        Raises:
            UnknownAdapter: with the nearest known name.
        """
        with self._lock:
            if name not in self._known:
                raise UnknownAdapter(
                    f"there is no adapter {name[:128]!r} among the {len(self._known)} known."
                    f"{nearest(name[:128], self._known)}"
                )

    def subfolder(self, name: str) -> Path:
        """The folder of that name inside the library's own, see `AdaptersFolder.subfolder`."""
        if self._folder is None:
            check_name(name)
            raise InputError(f"{name!r} cannot be loaded by name: there is no folder of adapters")
        return self._folder.subfolder(name)

    # The engine's side.

    def get(self, name: str) -> LoadedAdapter | None:
        """The present version if it is in memory, which then counts as used."""
        with self._lock:
            loaded = self._loaded.get(name)
            if loaded is not None:
                self._loaded.move_to_end(name)
            return loaded

    def fingerprints(self) -> frozenset[str]:
        """Of the present versions of all adapters that were in memory and may be again."""
        with self._lock:
            return frozenset[str]().union(*self._fingerprints.values())

    def failure(self, name: str) -> PeftlabError | None:
        """Why an adapter that was wanted cannot be had; told once, the next wish tries again."""
        with self._lock:
            return self._failed.pop(name, None)

    def want(self, names: Sequence[str]) -> None:
        """Say which adapters are needed next, the most urgent first."""
        with self._lock:
            if names != self._wanted:
                self._wanted = list(names)
                self._lock.notify_all()

    def prepare_one(self) -> bool:
        """Run one wanted adapter's common start through the model, in the engine's thread.

        Returns whether the model ran; adapters whose rows start with nothing of the kind are ready
        as soon as they are loaded.
        """
        with self._lock:
            waiting = (self._loaded.get(name) for name in self._wanted)
            it = next((it for it in waiting if it is not None and not it.is_ready), None)
        if it is None:
            return False
        try:
            it.prepare(self.model)
        except Exception as error:  # it alone is lost; else it would be tried again for ever
            told = _told(it.name, error)
            with self._lock:
                self._failed[it.name] = told
                if self._loaded.get(it.name) is it:
                    del self._loaded[it.name]
            self.changed()
            return True
        with self._lock:
            self._sizes[it.name] = it.size
        return True

    # The loader's side.

    def start(self) -> None:
        """Load in a thread of its own from now on."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="peftlab-loader", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread after the load at hand."""
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def runs(self) -> bool:
        """Whether the loader has its thread; if not, whoever steps the engine calls `load_one`."""
        return self._thread is not None

    @property
    def alive(self) -> bool:
        """Whether adapters can be loaded: its thread, where it has one, has not died."""
        return self._thread is None or self._thread.is_alive()

    def load_one(self) -> bool:
        """Do the most urgent load, if there is any; returns whether there was."""
        with self._lock:
            task = self._next()
        if task is None:
            return False
        self._do(task)
        self.changed()
        return True

    def _run(self) -> None:
        while True:
            with self._lock:
                while (task := self._next()) is None and not self._stopping:
                    self._lock.wait()
            if task is None or self._stopping:
                return
            self._do(task)
            self.changed()

    def _next(self) -> _Load | None:
        """What people asked for, then the first wanted adapter that is not there and has room."""
        if self._asked:
            return self._asked.popleft()
        total = 0
        for name in self._wanted:
            total += self._sizes.get(name, 0)
            if total > self.memory and name != self._wanted[0]:
                return None  # loading it would drive out one that is needed sooner
            if name in self._known and name not in self._loaded and name not in self._failed:
                return _Load(name, self._known[name])
        return None

    def _do(self, task: _Load) -> None:
        if task.asked is not None and not task.asked.set_running_or_notify_cancel():
            return  # whoever asked has left
        try:
            listed = self._enter(task)
        except Exception as error:
            told = _told(task.name, error)
            if task.asked is not None:
                task.asked.set_exception(told)
            else:
                with self._lock:
                    self._failed[task.name] = told
        else:
            if task.asked is not None:
                task.asked.set_result(listed)

    def _enter(self, task: _Load) -> Listed:
        name, source = task.name, task.source
        if isinstance(source, Path) and self._folder is not None:
            self._folder.check_links(source)
        adaptation = (
            source if isinstance(source, Adaptation) else open_adaptation(source, self.model)
        )
        version = self._versions.get(name, 0) + (task.asked is not None or name not in self._sizes)
        it = LoadedAdapter.make(name, version, adaptation, self.model)
        if it.size > self.memory:
            raise InputError(
                f"{name!r} takes {it.size:,} bytes, and adapters may take {self.memory:,} in all"
            )
        with self._lock:
            if task.asked is None and name not in self._known:
                raise UnknownAdapter(f"{name!r} was unloaded")
            self._known[name], self._loaded[name] = source, it
            self._versions[name], self._sizes[name] = version, it.size
            self._fingerprints[name] = it.fingerprints
            self._loaded.move_to_end(name)
            self._failed.pop(name, None)
            self._evict(name)
            return self._listed(name)

    def _evict(self, newest: str) -> None:
        """Drop the least recently used, and what is needed soon only after all others."""
        urgency = {name: -place for place, name in enumerate(self._wanted)}
        least = -len(self._wanted) - 1
        order = sorted(self._loaded, key=lambda name: urgency.get(name, least))  # stable
        total = sum(it.size for it in self._loaded.values())
        for name in order:
            if total <= self.memory:
                return
            if name != newest:
                total -= self._loaded.pop(name).size

    def _listed(self, name: str) -> Listed:
        source, it = self._known[name], self._loaded.get(name)
        folder = source if isinstance(source, Path) else None
        return Listed(name, folder) if it is None else _in_memory(it, folder)


def _in_memory(it: LoadedAdapter, folder: Path | None) -> Listed:
    return Listed(it.name, folder, it.method, it.version, it.size)


def _told(name: str, error: Exception) -> PeftlabError:
    if isinstance(error, UnknownAdapter):
        return error
    if isinstance(error, PeftlabError):
        return RefusedAdapter(f"{name!r} cannot be served: {error}")
    if isinstance(error, _OF_STRANGE_FILES):
        return RefusedAdapter(
            f"{name!r} cannot be served: its files are damaged ({type(error).__name__}: {error})"
        )
    _log.exception("loading adapter %s failed", name, exc_info=error)
    return Failed(f"loading {name!r} failed: {type(error).__name__}: {error}")
