"""A process that holds a loaded base, and from which runs are forked that share its memory.

The local engine's fork server has imported the libraries and nothing else; on a node of a cluster,
where several runs work side by side, this one has the base too. Pages that nobody writes to exist
once, whatever format the weights were stored in. One thread: what is forked then lacks nothing.

Whoever starts the holder keeps a pipe to it. When that closes, nothing new is begun, and after the
last run the holder removes its folder and ends. A run is asked for through a socket in the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from peftlab.comparison.processes import Died, Say, death, describe, failure, run_child
from peftlab.frozen import named as base

DOOR = "door"
TRUNK = "trunk"
_TICK = 1.0


class NotThere(Exception):
    """The holder does not answer."""


@dataclass(frozen=True)
class Call:
    """What is asked for. threads: of torch. settings: of the environment, as visible GPUs."""

    function: str
    arguments: tuple[Any, ...]
    threads: int
    settings: dict[str, str]


def start(
    folder: Path, model: str, formats: Sequence[str], within: Path | None = None
) -> Connection:
    """Start a holder in an empty folder; returns its pipe.

    The holder says ("ready", fingerprints), or ("failed", kind, message) and ends; it understands
    "stop", after which all its runs save and end.

    Args:
        model: the base. formats: the number formats in which it is held; none, as on a GPU, whose
            memory has its own. within: the folder that relative names start from, if it exists.
    """
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "peftlab.comparison.ray.holder"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with theirs:
        subprocess.run(
            [*command, str(theirs.fileno()), str(folder), model, *formats],
            env=environment,
            cwd=within if within is not None and within.is_dir() else None,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            check=True,
        )
    return Connection(ours.detach())


def call(
    folder: Path, asked: Call, hear: Say | None = None, tick: Callable[[], None] | None = None
) -> Any:
    """Return the function's result, computed in a process forked from the holder.

    Args:
        tick: called about once a second meanwhile.

    Raises:
        NotThere: the holder does not answer. RunFailed, DiskFull, Stopped: see `processes.call`.
    """
    with _knock(folder) as pipe:
        pipe.send(asked)
        last = time.monotonic()
        while True:
            if tick is not None and time.monotonic() - last > _TICK:
                tick()
                last = time.monotonic()
            if not pipe.poll(_TICK):
                continue
            try:
                word, *values = pipe.recv()
            except (EOFError, ConnectionError):
                raise Died("its process ended, and so did the one that held the base") from None
            if word == "result":
                return values[0]
            if word == "failed":
                raise failure(*values)
            if word == "ended":
                raise Died(death(values[0]))
            if hear is not None:
                hear(word, *values)


def _knock(folder: Path) -> Connection:
    door = socket.socket(socket.AF_UNIX)
    try:
        door.connect(str(folder / DOOR))
    except OSError as error:
        door.close()
        raise NotThere(f"nobody answers at {folder / DOOR}: {error}") from error
    return Connection(door.detach())


class _Child(NamedTuple):
    """A run's process, the pipe to whoever asked for it, and a pipe that closes at its death."""

    process: int
    pipe: Connection
    alive: int


class Holder:
    """The process itself."""

    def __init__(self, life: Connection, folder: Path) -> None:
        self.life, self.folder = life, folder
        self.children: dict[int, _Child] = {}
        self.open = True

    def go(self, model: str, formats: Sequence[str]) -> None:
        """Load, then fork until nobody needs it any more."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Ray starts its processes with Ctrl-C blocked, and what they start inherits that.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            fingerprints = _load(model, formats)
        except BaseException as error:
            self.life.send(("failed", *describe(error)))
            return
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(self.folder / DOOR))
            door.listen()
            self.life.send(("ready", fingerprints))
            while self.open or self.children:
                self._turn(door)

    def _turn(self, door: socket.socket) -> None:
        waits_for: list[Any] = [*self.children]
        if self.open:
            waits_for += [door, self.life]
        for ready in wait(waits_for):
            if isinstance(ready, int):
                self._bury(self.children.pop(ready))
            elif ready is door:
                self._fork(door)
            else:
                self._listen()

    def _listen(self) -> None:
        try:
            self.life.recv()
        except (EOFError, OSError):
            self.open = False
            return
        for child in self.children.values():
            os.kill(child.process, signal.SIGINT)

    def _fork(self, door: socket.socket) -> None:
        pipe = Connection(door.accept()[0].detach())
        alive, theirs = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(alive)
            for sibling in self.children.values():
                sibling.pipe.close()
            self.life.close()
            door.close()
            _run(pipe)
        os.close(theirs)
        self.children[alive] = _Child(process, pipe, alive)

    def _bury(self, child: _Child) -> None:
        """Tell whoever asked how the process ended; they have its last word already, if any."""
        os.close(child.alive)
        _, status = os.waitpid(child.process, 0)
        with suppress(OSError):  # they did not wait for it
            child.pipe.send(("ended", os.waitstatus_to_exitcode(status)))
        child.pipe.close()


def _load(model: str, formats: Sequence[str]) -> tuple[str, ...]:
    import torch

    from peftlab.measure import tune_allocator

    torch.set_num_threads(1)
    tune_allocator()
    return tuple(base.hold(model, dtype) for dtype in formats)


def _run(pipe: Connection) -> None:
    """In the child: what was asked for, and no way back."""
    import torch

    try:
        asked = pipe.recv()
        os.environ.update(asked.settings)
        torch.set_num_threads(asked.threads)
        run_child(pipe, asked.function, asked.arguments)
    except (EOFError, ConnectionError):
        pass  # whoever asked is gone
    except BaseException as error:  # what was asked for cannot be read here
        pipe.send(("failed", *describe(error)))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def main() -> None:
    """`python -m peftlab.comparison.ray.holder PIPE FOLDER MODEL FORMATS…`; returns at once.

    The holder is nobody's child, since Ray kills the children of what it ends.
    """
    pipe, folder, model, *formats = sys.argv[1:]
    if os.fork():
        os._exit(0)
    os.setsid()
    try:
        Holder(Connection(int(pipe)), Path(folder)).go(model, formats)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
