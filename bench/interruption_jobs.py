"""What `bench.interruptions` interrupts: commands that write, each in a process that ends in it.

A job is the command line of a user, carried out in this process: `compare` has its runs in
processes of their own, which are made part of this one, so that what befalls it befalls them.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_TRAIN = "--steps 6 --batch-size 2 --evaluate-every 2 --device cpu -o max_new_tokens=4"


@dataclass(frozen=True)
class Place:
    """Where a job finds what it needs, and where it writes.

    Attributes:
        adapters: a folder with adapters to export, by name.
        disk: the small disk that `out` is on, if it is on one.
    """

    base: str
    task: str
    out: Path
    adapters: Path
    disk: Path | None = None


@dataclass(frozen=True)
class Fault:
    """What happens when a process begins its nth write (0: never).

    Attributes:
        kind: "limit": files may have `bytes_left` from then on (RLIMIT_FSIZE); "disk": so many
            bytes are free from then on; "killed": as "limit", and the process ends where it
            writes more.
    """

    kind: str = "limit"
    at: int = 0
    bytes_left: int = 0


def carry_out(pipe: Any, job: str, place: Place, fault: Fault) -> None:
    """Do a job; sends its exit code (1 after a traceback), words, how often it wrote, and seconds
    until its first step and its end."""
    said, begun = io.StringIO(), time.monotonic()
    with redirect_stderr(said), redirect_stdout(io.StringIO()), _befallen(fault, place) as writes:
        try:
            code = JOBS[job](place)
        except BaseException:
            code = 1
            traceback.print_exc(file=said)
    first = writes[2] if len(writes) > 2 else begun  # after its folders
    pipe.send((code, said.getvalue(), len(writes), first - begun, time.monotonic() - begun))


@contextmanager
def _befallen(fault: Fault, place: Place) -> Iterator[list[float]]:
    """When writes began; the process saves at every step, and the fault comes when it is due."""
    from peftlab import files, trunk
    from peftlab.training import loop

    inner, begin, writes = files.writing, loop.Loop.__init__, list[float]()

    def counted(path: Path) -> Any:
        writes.append(time.monotonic())
        if len(writes) == fault.at:
            _strike(fault, place)
        return inner(path)

    def saved_often(self: Any, trainee: Any, config: Any, *more: Any, **named: Any) -> None:
        begin(self, trainee, replace(config, checkpoint_seconds=0.0), *more, **named)

    files.writing, loop.Loop.__init__ = counted, saved_often  # type: ignore[assignment, method-assign]
    loop.TrunkStore = lambda _, *disk: trunk.TrunkStore(0, *disk)  # type: ignore[assignment,misc]
    trunk._DISK_RESERVE = 0  # else nothing is ever kept on a small disk
    yield writes  # this process ends then


def _strike(fault: Fault, place: Place) -> None:
    if fault.kind == "disk":
        assert place.disk is not None
        state = os.statvfs(place.disk)
        size = max(0, state.f_bavail * state.f_frsize - fault.bytes_left)
        (place.disk / "filler").write_bytes(bytes(size))
        return
    if fault.kind == "killed":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (fault.bytes_left, most))


def _command(*words: str) -> int:
    from peftlab.cli.app import run

    return run([word for part in words for word in part.split()])


def _train(method: str) -> Callable[[Place], int]:
    def train(place: Place) -> int:
        what = f"--method {method} --model {place.base} --task {place.task} --limit 6"
        return _command("train", what, _TRAIN, f"--out {place.out}")

    return train


def _guest(place: Place) -> int:
    """A guest, which `train` has no command for."""
    import peftlab as pl
    from peftlab import guests
    from peftlab.bases.names import located
    from peftlab.comparison.label import parse
    from peftlab.errors import PeftlabError
    from peftlab.training import TrainConfig

    config = TrainConfig(steps=6, batch_size=2, evaluate_every=2)
    task = pl.load_task(place.task, limit=6, max_new_tokens=4)
    base = guests.PlainBase.load(located(place.base), place.base)
    (method,) = parse("peft:lora,r=2")
    assert guests.is_guest(method)
    try:
        trained = guests.train(base, method, task, config, folder=place.out)
        trained.adaptation.save(place.out / "adapter")
    except PeftlabError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(place: Place) -> int:
    """A search, two runs and the page."""
    from peftlab.comparison import local
    from peftlab.comparison.processes import RunFailed, Stopped, describe
    from peftlab.errors import DiskFull

    def here(function: str, *arguments: Any, hear: Any = None) -> Any:
        from importlib import import_module

        module, _, name = function.partition(":")
        try:
            return getattr(import_module(module), name)(hear or (lambda *_: None), *arguments)
        except BaseException as error:
            kind, message = describe(error)
            raise {"disk": DiskFull, "stopped": Stopped}.get(kind, RunFailed)(message) from error

    local.call = here
    what = f"--methods lora:rank=2,peft:ia3 --model {place.base} --task {place.task} --limit 6"
    return _command("compare", what, _TRAIN, f"--search 2 --out {place.out}")


def _export(kind: str, adapter: str) -> Callable[[Place], int]:
    def export(place: Place) -> int:
        what = f"{place.adapters / adapter} --to {kind} --model {place.base} --device cpu"
        return _command("export", what, f"--out {place.out}")

    return export


TRAININGS = {
    "train lora": _train("lora:rank=2"),
    "train last_k": _train("last_k:k=1"),  # with a kept trunk
    "train prompt_tuning": _train("prompt_tuning:length=4"),
    "train prefix_tuning+bottleneck": _train("prefix_tuning:length=3+bottleneck:bottleneck=2"),
    "train a guest": _guest,
}
ADAPTERS = {
    "lora": "lora:rank=2",
    "lora-before": "lora:rank=3",
    "prompt": "prompt_tuning:length=4",
    "prompt-before": "prompt_tuning:length=3",
}
BEFORE = " before"  # ends the name of an export of another adapter of the same kind
_KINDS = {"peft": "lora", "merged": "lora", "embedding-rows": "prompt", "vllm": "prompt"}
EXPORTS = {f"export {kind}": _export(kind, adapter) for kind, adapter in _KINDS.items()}
JOBS = {
    **TRAININGS,
    "compare": _compare,
    **EXPORTS,
    **{f"export {k}{BEFORE}": _export(k, f"{a}-before") for k, a in _KINDS.items()},
    **{f"adapter {name}": _train(method) for name, method in ADAPTERS.items()},
}
