"""A process of its own for every run, so that no run's memory or state reaches another.

A fork server imports torch and transformers once; each run is forked from it within milliseconds.
What a child says travels through a pipe. A child whose parent is gone saves and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from peftlab.errors import DiskFull, PeftlabError
from peftlab.files import what_is_full

Say = Callable[..., None]
"""What a child calls to tell its parent something: a word, then values that can be pickled."""

_PRELOAD = (
    "peftlab.frozen",  # first: it says what others may log
    "torch",
    "transformers",
    "accelerate",
    "transformers.optimization",
    "transformers.models.auto.modeling_auto",
    "rouge_score.rouge_scorer",
    "peftlab.comparison.work",
    "peftlab.comparison.again",
    "peftlab.comparison.profile",
    "peftlab.comparison.cost_prediction",
    "peftlab.comparison.shared_base",
)
STOP = "stop"
"""What is sent to a child that has to save and end."""
_TICK_SECONDS = 1.0
_END_SECONDS = 10.0
_GRACE_SECONDS = 60.0  # what a run may take to finish its step and save, once asked to stop


class RunFailed(PeftlabError):
    """A run ended with an error of its own; the others can go on."""


class Died(RunFailed):
    """A run's process ended without a word, as when it is killed or memory runs out."""


class Stopped(PeftlabError):
    """Ctrl-C came; what was under way is in its checkpoint, and the same command continues."""

    def __init__(
        self, message: str = "stopped; what is finished is kept, and the same command continues"
    ) -> None:
        super().__init__(message)


def server() -> BaseContext:
    """The fork server, which begins to import, or fresh interpreters where the system has none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOAD))
    resource_tracker.ensure_running()  # the fork server starts it, and it unblocks Ctrl-C here
    with _deaf_to_ctrl_c():
        forkserver.ensure_running()
    return context


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes begun here leave Ctrl-C to this one, until they ask for it.

    A terminal sends it to all at once, and the fork server, while it imports, would end in a
    traceback of its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def remembered_ctrl_c() -> Iterator[Callable[[], None]]:
    """A check that raises the KeyboardInterrupt of a Ctrl-C that came meanwhile.

    For code whose callbacks may swallow the one that is raised in them. Elsewhere than in the main
    thread, which alone is told of signals, there is nothing to check.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def handler(*_: object) -> None:
        pressed.set()
        raise KeyboardInterrupt

    def check() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


def call(function: str, *arguments: Any, hear: Say | None = None) -> Any:
    """Return `function(say, *arguments)`, computed in a process of its own.

    Args:
        function: "module:name"; the caller need not import what only the child needs.
        hear: gets what the child says; None: nobody listens.

    Raises:
        RunFailed, DiskFull, Stopped: see there.
    """
    context = server()
    ours, theirs = context.Pipe()
    asked = cloudpickle.dumps(arguments)
    child = context.Process(target=_run_pickled, args=(theirs, function, asked), daemon=True)  # type: ignore[attr-defined]
    with hidden_main():
        child.start()
    theirs.close()
    try:
        return listen(ours, hear)
    except EOFError:
        child.join()
        raise Died(death(child.exitcode)) from None
    except KeyboardInterrupt:
        _stop(ours)
        raise Stopped from None
    finally:
        child.join(_END_SECONDS)  # it has said its last word and only has to end
        if child.is_alive():
            child.kill()
            child.join()
        ours.close()


@contextmanager
def hidden_main() -> Iterator[None]:
    """Hide the caller's main module, which multiprocessing would have each child import.

    A script without an `if __name__` guard would start anew in its children. What is defined there
    travels by value (cloudpickle).
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def listen(
    pipe: Connection, hear: Say | None = None, tick: Callable[[], None] | None = None
) -> Any:
    """What a child returns, once it does; what it says until then goes to `hear`.

    Args:
        tick: called about once a second meanwhile.

    Raises:
        EOFError, ConnectionError: the child is gone. RunFailed, DiskFull, Stopped: see there.
    """
    last = time.monotonic()
    while True:
        if tick is not None and time.monotonic() - last > _TICK_SECONDS:
            tick()
            last = time.monotonic()
        if not pipe.poll(_TICK_SECONDS):
            continue
        word, *values = pipe.recv()
        if word == "result":
            return values[0]
        if word == "failed":
            raise failure(*values)
        if word == "ended":
            raise Died(death(values[0]))
        if hear is not None:
            hear(word, *values)


def failure(kind: str, message: str) -> PeftlabError:
    """What a child's failure is here, see `describe`."""
    return {"disk": DiskFull, "stopped": Stopped}.get(kind, RunFailed)(message)


def _stop(pipe: Connection) -> None:
    """Ask the child to save and end, once; a second Ctrl-C does not wait for it."""
    try:
        pipe.send(STOP)
        while pipe.poll(_GRACE_SECONDS):
            pipe.recv()
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return


def death(code: int | None) -> str:
    """An exit code in words; negative ones are signals."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; the system does that when memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with code {code} and said nothing"


def _run_pickled(pipe: Connection, function: str, arguments: bytes) -> None:
    run_child(pipe, function, pickle.loads(arguments))


def run_child(pipe: Connection, function: str, arguments: tuple[Any, ...]) -> None:
    """What a child does: say what the function says, then its result or how it failed."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C in a terminal goes to the parent alone, which passes it on once
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    lock = threading.Lock()

    def say(*said: Any) -> None:
        with lock, suppress(ConnectionError):  # the parent is gone: it is told to stop, and saves
            pipe.send(said)

    threading.Thread(target=_end_when_told, args=(pipe,), daemon=True).start()
    try:
        module, _, name = function.partition(":")
        say("result", getattr(import_module(module), name)(say, *arguments))
    except BaseException as error:
        say("failed", *describe(error))
    finally:
        sys.stdout.flush()


def _end_when_told(pipe: Connection) -> None:
    """A child that is told to stop, or whose parent is gone, saves and ends."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGINT)


def describe(error: BaseException) -> tuple[str, str]:
    """What kind of failure an error is ("stopped", "disk", "input", "defect"), and its message."""
    from peftlab.training import Interrupted

    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "stopped", str(error) or "stopped; the same command continues"
    if isinstance(error, DiskFull):
        return "disk", str(error)
    if full := what_is_full(error):  # while a library of others wrote
        return "disk", full
    if isinstance(error, PeftlabError):
        return "input", str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    return "defect", f"{type(error).__name__}: {error} ({place})"
