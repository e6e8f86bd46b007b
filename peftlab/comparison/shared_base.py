"""One process that has loaded the base while a comparison is planned; each probe is forked from it.

So the base is read, converted and checked once, and still no probe's memory reaches another.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from peftlab.comparison import base_server
from peftlab.comparison.processes import Died, Say, Stopped, death, hidden_main, server

_END_SECONDS = 10.0


class Named(NamedTuple):
    """A base by its name and number format, and where it runs."""

    name: str
    dtype: str
    device: str


class SharedBase:
    """Starts the process when it is first needed, and anew for another base."""

    def __init__(self) -> None:
        self._holds: Named | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._pipe: Connection | None = None
        self._process: BaseProcess | None = None

    def __enter__(self) -> SharedBase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def works_on(device: str) -> bool:
        """Whether what is forked can use a base that was loaded before: not one on a GPU."""
        return sys.platform == "linux" and device == "cpu"

    def call(self, base: Named, function: str, arguments: tuple[Any, ...], hear: Say) -> Any:
        """Return `function(say, *arguments)`, computed in a process forked from the base's.

        Raises:
            RunFailed: the base cannot be loaded, or see `processes.call`. DiskFull, Stopped.
        """
        if self._holds != base or self._process is None or not self._process.is_alive():
            self.close()
            self._start(base)
        assert self._folder is not None
        return base_server.call(Path(self._folder.name), function, arguments, 0, {}, hear)

    def close(self) -> None:
        """End the process, if there is one; at once where it is loading still."""
        if self._pipe is not None:
            self._pipe.close()
        try:
            if self._process is not None and self._holds is not None:
                self._process.join(_END_SECONDS)
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.join()
            if self._folder is not None:
                self._folder.cleanup()
            self._holds = self._pipe = self._process = self._folder = None

    def _start(self, base: Named) -> None:
        context = server()
        self._folder = tempfile.TemporaryDirectory(
            prefix="peftlab-base-", ignore_cleanup_errors=True
        )
        self._pipe, theirs = context.Pipe()
        process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, self._folder.name, base.name, base.dtype)
        )
        try:
            with hidden_main(), theirs:
                process.start()
            self._process = process
            base_server.fingerprints(self._pipe)
        except (EOFError, ConnectionError):
            process.join(_END_SECONDS)
            raise Died(death(process.exitcode)) from None
        except KeyboardInterrupt:
            raise Stopped from None
        self._holds = base


def _serve(owner: Connection, folder: str, name: str, dtype: str) -> None:
    try:
        base_server.serve(owner, Path(folder), name, (dtype,))
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # where whoever started it is gone
