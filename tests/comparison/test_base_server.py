"""The process that holds a base: what it forks shares it, and nothing outlives its need."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from peftlab.comparison import base_server
from peftlab.comparison.processes import Died, RunFailed, Stopped

pytestmark = pytest.mark.slow

HELPERS = "tests.comparison.cluster_helpers"
PATIENCE = 120.0


@pytest.fixture
def life(base: str, tmp_path: Path) -> Iterator[Connection]:
    """Started with Ctrl-C blocked, as Ray does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pipe = base_server.start(tmp_path, base, ("fp32",))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    assert pipe.poll(PATIENCE)
    word, fingerprints = pipe.recv()
    assert word == "ready"
    assert len(fingerprints) == 1
    yield pipe
    pipe.close()


def call(folder: Path, name: str, *arguments: Any, **options: Any) -> Any:
    settings = {"CUDA_VISIBLE_DEVICES": "7"}
    return base_server.call(folder, f"{HELPERS}:{name}", arguments, 1, settings, **options)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_children_share_one_base(life: Connection, base: str, tmp_path: Path) -> None:
    one, two = (call(tmp_path, "about_base", base) for _ in range(2))
    assert one["parent"] == two["parent"], "both were forked from the same process"
    assert one["process"] != two["process"]
    assert one["address"] == two["address"], "and have its tensors"
    assert (one["threads"], one["setting"]) == (1, "7")


def test_a_base_in_memory_is_there_once(tmp_path: Path, large_base: str) -> None:
    """Of 16 MiB of weights, hardly any page is a child's own."""
    with base_server.start(tmp_path / "held", large_base, ("fp32",)) as pipe:
        assert pipe.recv()[0] == "ready"
        about = call(tmp_path / "held", "about_base", large_base)
        assert about["private"] < 2 << 20


@pytest.fixture
def large_base(tmp_path: Path, base: str) -> str:
    """Stored as bfloat16, so that fp32 weights are no mapped file's pages."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    (tmp_path / "held").mkdir()
    config = GPT2Config(n_layer=1, n_embd=512, n_head=2, vocab_size=8192, n_positions=64)
    folder = tmp_path / "large"
    GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return str(folder)


def test_deaths_and_errors_are_told(life: Connection, tmp_path: Path) -> None:
    with pytest.raises(Died, match="SIGKILL"):
        call(tmp_path, "kills_itself")
    with pytest.raises(RunFailed, match="no_such_function"):
        call(tmp_path, "no_such_function")
    assert call(tmp_path, "says_and_sleeps", 0.0) == "slept", "and the next one is served"


def test_whoever_asked_gets_turns_while_a_child_talks(life: Connection, tmp_path: Path) -> None:
    ticks: list[int] = []
    call(tmp_path, "keeps_talking", 3.0, hear=lambda *_: None, tick=lambda: ticks.append(1))
    assert ticks


def test_ctrl_c_lets_the_child_save_and_end(life: Connection, tmp_path: Path) -> None:
    heard: list[Any] = []

    def hear(*said: Any) -> None:
        heard.append(said)
        raise KeyboardInterrupt

    with pytest.raises(Stopped):
        call(tmp_path, "says_and_sleeps", PATIENCE, hear=hear)
    assert heard[0][0] == "here"


def test_a_child_ends_with_whoever_asked(life: Connection, tmp_path: Path) -> None:
    pipe = Client(str(tmp_path / base_server.SOCKET), "AF_UNIX")
    pipe.send((f"{HELPERS}:says_and_sleeps", (PATIENCE,), 1, {}))
    _, process = pipe.recv()
    pipe.close()
    wait_for(lambda: not psutil.pid_exists(process))


def test_a_child_that_talks_to_nobody_saves_and_ends(life: Connection, tmp_path: Path) -> None:
    pipe = Client(str(tmp_path / base_server.SOCKET), "AF_UNIX")
    pipe.send((f"{HELPERS}:talks_until_told", (tmp_path / "saved",), 1, {}))
    pipe.recv()
    pipe.close()
    wait_for((tmp_path / "saved").exists)


def test_the_server_waits_for_the_last_child_and_cleans_up(
    life: Connection, tmp_path: Path
) -> None:
    results: list[Any] = []
    begun = threading.Event()

    def ask() -> None:
        results.append(call(tmp_path, "says_and_sleeps", 2.0, hear=lambda *_: begun.set()))

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(PATIENCE)
    life.close()
    thread.join(PATIENCE)
    assert results == ["slept"]
    wait_for(lambda: not tmp_path.exists())
    with pytest.raises(Died, match="no base server answers"):
        call(tmp_path, "says_and_sleeps", 0.0)


def test_a_base_that_is_not_there_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    with base_server.start(folder, str(tmp_path / "nowhere"), ("fp32",)) as pipe:
        word, kind, message = pipe.recv()
    assert (word, kind) == ("failed", "input")
    assert "cannot load a model" in message
    wait_for(lambda: not folder.exists())
