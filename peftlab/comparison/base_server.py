"""A process that holds a loaded base, and from which runs are forked that share its memory.

The local engine's fork server has imported the libraries and nothing else; on a node of a cluster,
where several runs work side by side, this one has the base too. Pages that nobody writes to exist
once, whatever format the weights were stored in. One thread: what is forked then lacks nothing.

Whoever starts it keeps a pipe to it. When that closes, nothing new is begun, and after the last run
the server removes its folder and ends. A run is asked for through a socket in the folder.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cloudpickle

from peftlab.comparison.processes import STOP, Died, Say, describe, failure, listen, run_child
from peftlab.frozen import named as base

SOCKET = "socket"
TRUNK = "trunk"


def start(
    folder: Path, model: str, formats: Sequence[str], within: Path | None = None
) -> Connection:
    """Start a base server in an empty folder; returns its pipe.

    It says ("ready", fingerprints), or ("failed", kind, message) and ends, see `fingerprints`.

    Args:
        model: the base. formats: the number formats in which it is held; none, as on a GPU, whose
            memory has its own. within: the folder that relative names start from, if it exists.
    """
    ours, theirs = multiprocessing.Pipe()
    command = [sys.executable, "-m", "peftlab.comparison.base_server"]
    with theirs:
        subprocess.run(
            [*command, str(theirs.fileno()), str(folder), model, *formats],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=within if within is not None and within.is_dir() else None,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            check=True,
        )
    return ours


def fingerprints(server: Connection) -> tuple[str, ...]:
    """Of the base, in each number format, once a server that was started has loaded it.

    Raises:
        EOFError, ConnectionError: the server is gone. RunFailed, DiskFull: it cannot load the base.
    """
    word, *values = server.recv()
    if word == "failed":
        raise failure(*values)
    held: tuple[str, ...] = values[0]
    return held


def call(
    folder: Path,
    function: str,
    arguments: tuple[Any, ...],
    threads: int,
    settings: dict[str, str],
    hear: Say | None = None,
    tick: Callable[[], None] | None = None,
) -> Any:
    """Return `function(say, *arguments)`, computed in a process forked from the base server.

    At Ctrl-C, or `ray.cancel`, which is the same, the process saves and ends first.

    Args:
        threads: of torch; 0: as many as the base server began with. settings: of the environment,
            as visible GPUs. hear, tick: see `listen`.

    Raises:
        Died: the process, or the base server. RunFailed, DiskFull, Stopped: see there.
    """
    try:
        pipe = Client(str(folder / SOCKET), "AF_UNIX")
    except OSError as error:
        raise Died(f"no base server answers in {folder}: {error}") from None
    with pipe:
        try:
            # By value, as it came: what the user's main module defines is no module here.
            pipe.send_bytes(cloudpickle.dumps((function, arguments, threads, settings)))
            try:
                return listen(pipe, hear, tick)
            except KeyboardInterrupt:
                pipe.send(STOP)
                return listen(pipe)
        except (EOFError, ConnectionError):
            raise Died("its process ended, and so did the one that held the base") from None


def serve(owner: Connection, folder: Path, model: str, formats: Sequence[str]) -> None:
    """Load, then fork until nobody needs it any more.

    owner: the pipe of whoever started it, who says nothing; it ends with them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ray starts its processes with Ctrl-C blocked, and what they start inherits that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    import torch

    usual = torch.get_num_threads()
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            held = _load(model, formats)
            listener.bind(str(folder / SOCKET))
            listener.listen()
        except BaseException as error:
            with suppress(OSError):  # whoever started it may be gone
                owner.send(("failed", *describe(error)))
            return
        with suppress(OSError):
            owner.send(("ready", held))
        _serve(owner, listener, usual)


def _serve(owner: Connection, listener: socket.socket, usual: int) -> None:
    runs: dict[Any, tuple[BaseProcess, Connection]] = {}
    asking: list[Any] = [listener, owner]
    fork = multiprocessing.get_context("fork")
    while asking or runs:
        for ready in wait([*runs, *asking]):
            if ready is owner:
                asking = []
            elif ready is listener:
                pipe = Connection(listener.accept()[0].detach())
                others = [owner, listener, *(other for _, other in runs.values())]
                child = fork.Process(target=_run, args=(pipe, others, usual))
                child.start()
                runs[child.sentinel] = child, pipe
            else:
                run, pipe = runs.pop(ready)
                run.join()
                with pipe, suppress(OSError):  # whoever asked may not wait for its last word
                    pipe.send(("ended", run.exitcode))


def _load(model: str, formats: Sequence[str]) -> tuple[str, ...]:
    import torch

    from peftlab.measure import tune_allocator

    torch.set_num_threads(1)
    tune_allocator()
    return tuple(base.hold(model, dtype) for dtype in formats)


def _run(pipe: Connection, others: Sequence[Connection | socket.socket], usual: int) -> None:
    """In the child: what was asked for; it keeps nothing open that others wait for the end of."""
    import torch

    for other in others:
        other.close()
    try:
        function, arguments, threads, settings = pipe.recv()
    except (EOFError, ConnectionError):
        return  # whoever asked is gone
    except BaseException as error:  # what was asked for cannot be read here
        pipe.send(("failed", *describe(error)))
        return
    os.environ.update(settings)
    torch.set_num_threads(threads or usual)
    run_child(pipe, function, arguments)


def main() -> None:
    """`python -m peftlab.comparison.base_server PIPE FOLDER MODEL FORMATS…`; returns at once.

    The base server is nobody's child, since Ray kills the children of what it ends.
    """
    pipe, folder, model, *formats = sys.argv[1:]
    if os.fork():
        os._exit(0)
    try:
        serve(Connection(int(pipe)), Path(folder), model, formats)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
