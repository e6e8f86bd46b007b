"""Ctrl-C and kill -9 of a whole comparison: the same command continues, with the same numbers."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab.cli.app import run
from peftlab.records.record import Record

STEPS = 200  # long enough that an interruption comes on the way
PATIENCE = 120.0  # seconds until a test gives up on a machine that is busy


def command(base: str, data: Path, out: Path) -> list[str]:
    options = f"--model {base} --task {data} -o max_new_tokens=4 --methods lora:rank=2"
    sizes = f"--steps {STEPS} --batch-size 2 --evaluate-every 50 --device cpu --out {out}"
    return ["compare", *options.split(), *sizes.split()]


def finish(base: str, data: Path, out: Path) -> Record:
    assert run(command(base, data, out)) == 0
    (path,) = out.glob("*/seed-0/record.json")
    return Record.read(path)


@pytest.fixture(scope="module")
def whole(base: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The run that nobody interrupted."""
    return finish(base, data, tmp_path_factory.mktemp("whole"))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def under_way(out: Path) -> bool:
    """The first run has taken some steps."""
    logs = list(out.glob("lora*/seed-0/metrics.jsonl"))
    return bool(logs) and len(logs[0].read_text().splitlines()) > 5


def free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _hears_ctrl_c() -> None:
    """A shell starts its background jobs deaf to Ctrl-C, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_comparison_continues(
    how: signal.Signals, base: str, data: Path, whole: Record, tmp_path: Path
) -> None:
    out = tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, "-m", "peftlab", *command(base, data, out)],
        start_new_session=True,
        preexec_fn=_hears_ctrl_c,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: under_way(out) or process.poll() is not None)
    os.kill(process.pid, how)
    _, said = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -how), said
    assert "kernels-community" not in said, "a library's hint to its own users"
    (folder,) = out.glob("lora*/seed-0")
    wait_for(lambda: free(folder / ".lock"))  # the run outlives its comparison only to save
    assert (folder / "checkpoint.safetensors").exists()
    taken = len((folder / "metrics.jsonl").read_text().splitlines())
    assert taken < STEPS, "it was stopped on the way"
    cut = finish(base, data, out)
    assert (cut.status, cut.loss, cut.scores) == ("finished", whole.loss, whole.scores)
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "loss" in x] == list(range(1, STEPS + 1))


WARMING = """
import time
from peftlab.comparison.run import warm_up
warm_up()
print("begun", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("heard", flush=True)
"""


@pytest.mark.slow
def test_ctrl_c_while_the_fork_server_imports_is_for_the_command_alone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WARMING],
        start_new_session=True,
        preexec_fn=_hears_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    time.sleep(0.5)  # in the midst of its first import
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    heard, said = process.communicate(timeout=PATIENCE)
    assert (heard, said) == ("heard\n", "")
