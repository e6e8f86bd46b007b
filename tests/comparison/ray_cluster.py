"""A real Ray cluster on this machine, a node at a time, that leaves nothing behind."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PATIENCE = 400.0  # seconds until a test gives up on a machine that is busy
_PR_SET_PDEATHSIG = 1
_TRIES = 5  # Ray gives a node 30 seconds to start, which on a busy machine is little
_SERVER = "peftlab.comparison.base_server"
_SIZES = ("--object-store-memory", "80000000", "--memory", str(4 << 30))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str = "it") -> None:
    """Poll until it is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


class Cluster:
    """Nodes are processes of `ray start --block`; the first one is the head."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: sockets lie in it
        self.port = free_port()
        self.nodes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """For `--address`."""
        return f"127.0.0.1:{self.port}"

    def start(self, cpus: int = 1, **settings: str) -> int:
        """Add a node, with these settings in its environment; returns its number."""
        number = len(self.nodes)
        if self.nodes:
            role = ["--address", self.address]
        else:
            client = str(free_port())
            role = ["--head", "--port", str(self.port), "--temp-dir", str(self.folder)]
            role += ["--include-dashboard=false", "--ray-client-server-port", client]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role]
        command += ["--num-cpus", str(cpus), "--disable-usage-stats", *_SIZES]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # else a busy machine leaves them nothing
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_AUTH_MODE": "disabled",  # whatever token lies in the user's home
            "TMPDIR": str(self._scratch(number)),
        }
        for tries_left in reversed(range(_TRIES)):
            node = self._launch(command, environment | settings, self._log(number))
            self.nodes[number:] = [node]
            wait_for(lambda: self._is_up(number) or not self._lives(number), f"node {number}")
            if self._lives(number):
                break
            assert tries_left, self._log(number).read_text(errors="replace")
        return number

    @staticmethod
    def _launch(
        command: list[str], environment: dict[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            return subprocess.Popen(
                command,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=_end_with_tests,
            )

    def _lives(self, number: int) -> bool:
        return self.nodes[number].poll() is None

    def _scratch(self, number: int) -> Path:
        folder = self.folder / f"n{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def _log(self, number: int) -> Path:
        return self.folder / f"node-{number}.log"

    def _is_up(self, number: int) -> bool:
        return "Ray runtime started" in self._log(number).read_text(errors="replace")

    def kill(self, number: int) -> None:
        """End a node as a power cut would: everything at once, runs included."""
        node = self.nodes[number]
        if node.poll() is None:
            for one in [node, *psutil.Process(node.pid).children(recursive=True)]:
                _kill(one)
            node.wait()
        for one in self.base_servers(number):
            _kill(one)

    def base_servers(self, number: int) -> list[psutil.Process]:
        """The process that holds a node's base, and the runs forked from it."""
        folder = str(self._scratch(number))
        return [one for one, said in _commands() if _SERVER in said and folder in said]

    def workers(self) -> list[psutil.Process]:
        """Ray's processes that wait for a run now, on any node of this cluster and of no other."""
        own = {
            one.pid
            for node in self.nodes
            if node.poll() is None
            for one in psutil.Process(node.pid).children(recursive=True)
        }
        waiting = (one for one, said in _commands() if said.startswith("ray::carry_out"))
        return [one for one in waiting if one.pid in own]

    def stop(self) -> None:
        """End all nodes and whatever they have started, and remove their files."""
        for number in reversed(range(len(self.nodes))):
            self.kill(number)
        for one, said in _commands():
            if str(self.folder) in said:
                _kill(one)
        shutil.rmtree(self.folder, ignore_errors=True)


def _end_with_tests() -> None:
    """Have the kernel end a node, which ends its processes, when that of the tests is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _commands() -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.process_iter(["cmdline"]):
        yield process, " ".join(process.info["cmdline"] or [])


def _kill(process: psutil.Process | subprocess.Popen[bytes]) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()
