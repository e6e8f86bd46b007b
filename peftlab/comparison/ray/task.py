"""A call on its node, in a process forked from the node's base server, and its run's files.

Where the node does not see the comparison's folder, files travel through Ray, see `Home`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from peftlab.comparison import base_server
from peftlab.comparison.engine import Call
from peftlab.comparison.plan import GeneralText, Plan, Run
from peftlab.comparison.processes import Died, RunFailed, Stopped, describe
from peftlab.comparison.ray import cluster
from peftlab.errors import DiskFull
from peftlab.files import found, make_folder, write_bytes
from peftlab.records import folders
from peftlab.records.record import NAME
from peftlab.tasks import Task

_PASSED_ON = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_HOME = "the command's machine"
_LASTING = (folders.CHECKPOINT, NAME)  # what can be continued from once it has arrived
Common = tuple[Task, GeneralText | None]
Files = dict[str, bytes]


class Place(NamedTuple):
    """Where a node works."""

    name: str  # of the node, for people
    folder: Path  # of its base server; kept activations lie there too
    out: Path  # the comparison's folder, or, where the node does not see that, one of its own
    shared: bool  # whether it sees it
    fingerprints: tuple[str, ...]  # of the base that is held, by number format


def without_common(subject: Run | Plan) -> tuple[Run | Plan, Common | None]:
    """What is sent with a call, and what is large and the same for all runs, which is sent once."""
    if isinstance(subject, Plan):
        return subject, None
    rows = replace(subject.task, train=(), validation=(), test=())
    return replace(subject, task=rows, general=None), (subject.task, subject.general)


class Home:
    """An actor beside the command: its folder, for nodes that do not see it, and its notices."""

    def __init__(self, out: Path) -> None:
        self.out, self.notices = out, list[str]()
        self.ended: dict[Any, str] = {}  # how the last try of a call ended, by the call's key

    def begin(self, call: Call, node: str) -> None:
        """A try of a call begins."""
        if call.key in self.ended:
            self.notices.append(f"{call}: tried again, since on {self.ended[call.key]}")
        self.die(call, node, "its worker or the node itself was lost")  # unless more is said of it

    def die(self, call: Call, node: str, reason: str) -> None:
        """A try has ended without a result."""
        self.ended[call.key] = f"{node} {reason}"

    def take(self) -> list[str]:
        """All notices since the last time, in order."""
        notices, self.notices = self.notices, []
        return notices

    def fetch(self, folder: Path) -> Files:
        """The files of a run's folder."""
        with named_machine(_HOME):
            return packed(self.out / folder)

    def store(self, folder: Path, files: Files) -> None:
        """Put files into a run's folder."""
        with named_machine(_HOME):
            unpack(files, self.out / folder)


def carry_out_on(node: Any, home: Any, call: Call, common: Common | None) -> Any:
    """Return what a call returns.

    Args:
        node, home: actors, see `Node` and `Home`.

    Raises:
        Died, Stopped: the run's process, or its base server; Ray tries again.
        RunFailed, DiskFull: see there.
    """
    import ray

    try:
        place: Place = ray.get(node.place.remote())
    except ray.exceptions.RayError as error:
        raise Died(f"the base is not held any more: {cluster.reason(error)}") from error
    ray.get(home.begin.remote(call, place.name))
    subject = call.subject
    if isinstance(subject, Run) and common is not None:
        subject = replace(subject, task=common[0], general=common[1])
    arguments = (subject, place.out, place.folder / base_server.TRUNK)
    threads = int(ray.get_runtime_context().get_assigned_resources()["CPU"])
    settings = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    where, function = place.folder, call.function
    try:
        with named_machine(place.name), _files(home, place, call.folder) as tick:
            return base_server.call(where, function, arguments, threads, settings, tick=tick)
    except (Died, Stopped) as error:
        ray.get(home.die.remote(call, place.name, str(error)))
        raise


@contextmanager
def named_machine(machine: str) -> Iterator[None]:
    """Say on which machine a disk is full, or files cannot be read or written."""
    try:
        yield
    except (DiskFull, OSError) as error:
        known = getattr(error, "cause", error)  # Ray's, of another machine
        kind, message = ("disk", str(known)) if isinstance(known, DiskFull) else describe(known)
        raise (DiskFull if kind == "disk" else RunFailed)(f"{machine}: {message}") from error


@contextmanager
def _files(home: Any, place: Place, folder: Path | None) -> Iterator[Callable[[], Any] | None]:
    """Fetch a run's files where the node does not see them, and send them back at the end.

    Yields what sends back, now and then, those that have changed; None where all see them.
    """
    import ray

    if place.shared or folder is None:
        yield None
        return
    here = place.out / folder
    unpack(ray.get(home.fetch.remote(folder)), here)
    changes = Changes(here)
    try:
        yield lambda: ray.get(home.store.remote(folder, changes.take()))
    finally:
        ray.get(home.store.remote(folder, packed(here)))


class Changes:
    """What has changed in a folder since it was last asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._seen = folder, _stamps(folder)

    def take(self) -> Files:
        """The files that are new, if a checkpoint or a record is among them; else none."""
        new = _stamps(self.folder) - self._seen
        if not any(Path(name).name in _LASTING for name, *_ in new):
            return {}
        self._seen |= new
        return _contents(self.folder, new)


def packed(folder: Path) -> Files:
    """All files of a folder, by their paths in it, without locks and kept activations."""
    return _contents(folder, _stamps(folder))


def unpack(files: Files, folder: Path) -> None:
    """Write files into a folder, each whole or not at all, records last."""
    for name in sorted(files, key=lambda name: Path(name).name == NAME):
        make_folder((folder / name).parent)
        write_bytes(folder / name, files[name])


def _stamps(folder: Path) -> set[tuple[str, int, int]]:
    """A folder's files, when they were written, and their sizes."""
    stamps = set()
    for path in found(folder, "*"):
        name = path.relative_to(folder)
        with suppress(FileNotFoundError):  # what a run no longer needs, it removes
            about = path.stat()
            if stat.S_ISREG(about.st_mode) and folders.TRUNK not in name.parts:
                stamps.add((name.as_posix(), about.st_mtime_ns, about.st_size))
    return stamps


def _contents(folder: Path, stamps: Iterable[tuple[str, int, int]]) -> Files:
    contents = {}
    for name, *_ in stamps:
        with suppress(FileNotFoundError):
            contents[name] = (folder / name).read_bytes()
    return contents
