"""A call on its node, in a process forked from the node's base server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftlab.comparison import base_server
from peftlab.comparison.engine import Call
from peftlab.comparison.plan import GeneralText, Run
from peftlab.comparison.processes import Died, RunFailed, Stopped, describe
from peftlab.comparison.ray import cluster
from peftlab.comparison.ray.payload import Changes, Files, Place, packed, unpack
from peftlab.errors import DiskFull
from peftlab.tasks import Task

_PASSED_ON = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_HOME = "the command's machine"
Common = tuple[Task, GeneralText | None]


def without_common(run: Run) -> tuple[Run, Common]:
    """A run as it is sent, and what is large and the same for all runs, which is sent once."""
    rows = replace(run.task, train=(), validation=(), test=())
    return replace(run, task=rows, general=None), (run.task, run.general)


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


def carry_out_on(node: Any, home: Any, call: Call, threads: int, common: Common | None) -> Any:
    """Return what a call returns.

    Args:
        node, home: actors, see `Node` and `Home`. threads: of torch.

    Raises:
        Died, Stopped: the run's process, or its base server; Ray tries again.
        RunFailed, DiskFull: see there.
    """
    import ray

    try:
        place: Place = ray.get(node.place.remote())
    except ray.exceptions.RayError as error:
        raise Died(f"the base is not held any more: {cluster.reason(error)[0]}") from error
    ray.get(home.begin.remote(call, place.name))
    subject = call.subject
    if isinstance(subject, Run) and common is not None:
        subject = replace(subject, task=common[0], general=common[1])
    arguments = (subject, place.out, place.folder / base_server.TRUNK)
    settings = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    where, function = place.folder, call.function
    try:
        with named_machine(place.name), _files(ray, home, place, call.folder) as tick:
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
def _files(
    ray: Any, home: Any, place: Place, folder: Path | None
) -> Iterator[Callable[[], None] | None]:
    """A run's files, fetched and, whenever they have changed, sent back; none where all see them.

    Yields what has to be called now and then.
    """
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
