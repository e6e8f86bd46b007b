"""What engines are made of, without a cluster."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab.cli.app import run
from peftlab.comparison.engine import PROFILE, Call, Opened, Workflow
from peftlab.comparison.local import LocalEngine
from peftlab.comparison.plan import Base, Plan, runs_of
from peftlab.comparison.processes import DiskFull, RunFailed, call, remembered_ctrl_c
from peftlab.comparison.ray import cluster, nodes, task
from peftlab.comparison.ray.cluster import Needs
from peftlab.comparison.ray.task import named_machine as on
from peftlab.comparison.ray.task import without_common
from peftlab.comparison.run import compare
from peftlab.comparison.work import work
from peftlab.errors import InputError
from peftlab.measure.environment import versions
from peftlab.tasks import Task
from peftlab.trunk import Trunk
from tests.comparison.test_comparison import make


def test_files_travel_whole(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "seed-0" / "trunk").mkdir(parents=True)
    (here / "seed-0" / "record.json").write_text("{}")
    (here / "seed-0" / "checkpoint.safetensors").write_bytes(b"\x00\x01")
    (here / "seed-0" / "trunk" / "chunk.safetensors").write_bytes(b"large")
    (here / "seed-0" / ".lock").touch()
    files = task.packed(here)
    assert sorted(files) == ["seed-0/checkpoint.safetensors", "seed-0/record.json"]
    task.unpack(files, there)
    assert (there / "seed-0" / "checkpoint.safetensors").read_bytes() == b"\x00\x01"
    assert task.packed(there) == files
    assert task.packed(tmp_path / "nothing") == {}


def test_changes_are_told_once_they_can_be_continued_from(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("1\n")
    changes = task.Changes(tmp_path)
    assert changes.take() == {}
    (tmp_path / "metrics.jsonl").write_text("1\n2\n")
    assert changes.take() == {}, "without a checkpoint this is of no use"
    (tmp_path / "checkpoint.safetensors").write_bytes(b"2")
    assert changes.take() == {"metrics.jsonl": b"1\n2\n", "checkpoint.safetensors": b"2"}
    assert changes.take() == {}


def test_versions_are_compared() -> None:
    mine = versions(nodes.PACKAGES)
    assert set(mine) == {"python", "peftlab", "torch", "transformers"}
    assert "missing" not in mine.values()
    assert nodes.differences(mine, mine) == []
    assert nodes.differences({"torch": "2"}, {"torch": "3"}) == ["torch 3 instead of 2"]
    assert nodes.differences({"torch": "2"}, {}) == ["torch missing instead of 2"]


SMALL = {"CPU": 4.0, "memory": 8e9}
LARGE = {"CPU": 16.0, "GPU": 4.0, "memory": 64e9}
HEAD = {"memory": 8e9}


def test_a_run_takes_a_node_or_a_gpus_share_of_it() -> None:
    assert cluster.needs([HEAD, SMALL, LARGE], None, gpu=False) == Needs(4, 0)
    assert cluster.needs([HEAD, SMALL, LARGE], None, gpu=True) == Needs(4, 1)
    assert cluster.needs([LARGE], 2, gpu=False) == Needs(2, 0)
    with pytest.raises(InputError, match="none of the cluster's 2 nodes has a CPU and a GPU"):
        cluster.needs([HEAD, SMALL], None, gpu=True)
    with pytest.raises(InputError, match=r"a run needs 32 CPU on one node.*at most 16 CPU, 4 GPU"):
        cluster.needs([SMALL, LARGE], 32, gpu=False)
    with pytest.raises(InputError, match=r"lora needs 4 CPU, 93.1 GiB of memory"):
        cluster.check_fit(Needs(4, 0, int(100e9)), [SMALL, LARGE], "lora")


def test_no_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(["compare", "--engine", "ray"]) == 2
    assert "pip install 'peftlab[ray]'" in capsys.readouterr().err


def test_options_of_a_cluster_belong_to_it(capsys: Any) -> None:
    assert run(["compare", "--cpus", "2"]) == 2
    assert "--cpus belongs to --engine ray" in capsys.readouterr().err
    assert run(["compare", "--engine", "ray", "--cpus", "0"]) == 2
    assert "at least 1 was expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", "is a Ray client's; HOST:PORT"),
        ("head", "HOST:PORT was expected"),
        ("head:port", "HOST:PORT was expected"),
        ("127.0.0.1:99999", "nobody answers"),
    ],
)
def test_addresses_that_cannot_be(address: str, message: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=message):
        cluster.connect(address)


def test_an_address_where_nobody_answers() -> None:
    pytest.importorskip("ray")
    with socket.socket() as one:  # bound, and deaf
        one.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match=r"nobody answers at --address 127.0.0.1:\d+"):
            cluster.connect(f"127.0.0.1:{one.getsockname()[1]}")


@pytest.fixture
def mute_server() -> Iterator[int]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        for one in taken:
            one.close()


@pytest.mark.slow
def test_what_answers_is_no_cluster(mute_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(cluster, "_HEALTH_SECONDS", 5.0)
    with pytest.raises(InputError, match="is no Ray cluster"):
        cluster.connect(f"127.0.0.1:{mute_server}")


@pytest.fixture
def plan(base: str, task: Task) -> Plan:
    return make(base, task, "last_k:k=1", seeds=(0, 1))


def test_rows_are_sent_once(plan: Plan) -> None:
    about = Base(name="b", fingerprint="f", parameters=1, device="cpu")
    one, other = runs_of(plan, about, plan.task)
    (sent, common), (_, again) = without_common(one), without_common(other)
    assert common[0] is again[0] is plan.task
    assert not sent.task.train
    assert sent.task.template == plan.task.template


def test_a_full_disk_is_told_with_its_machine() -> None:
    """And with both, where a node has it from the command's."""
    with pytest.raises(DiskFull, match=r"^node-1: the disk is full\. .*make room"), on("node-1"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(DiskFull, match=r"^node-1: head: the disk is full"),
        on("node-1"),
        on("head"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(RunFailed, match=r"^node-1: PermissionError"), on("node-1"):
        raise PermissionError(errno.EACCES, "no")


class Counted:
    """Chunks of the frozen trunk that were really computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chunks, plain = 0, Trunk._run

        def counting(trunk: Trunk, *arguments: Any, **options: Any) -> Any:
            self.chunks += 1
            return plain(trunk, *arguments, **options)

        monkeypatch.setattr(Trunk, "_run", counting)


@pytest.mark.slow
def test_runs_of_a_machine_share_kept_activations(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second seed computes none of them again, and finds the same numbers."""
    plan = replace(plan, config=replace(plan.config, steps=12))  # 48 of 24 rows: keeping pays
    about = call(PROFILE, plan, tmp_path).base
    counted, runs = Counted(monkeypatch), runs_of(plan, about, plan.task)
    shared = tmp_path / "shared"
    work(_deaf, runs[0], tmp_path / "one", shared)
    assert counted.chunks > 0
    assert len(list(shared.glob("*.safetensors"))) == counted.chunks
    counted.chunks = 0
    record = work(_deaf, runs[1], tmp_path / "one", shared)
    assert counted.chunks == 0
    alone = work(_deaf, runs[1], tmp_path / "two")
    assert counted.chunks > 0
    assert (record.loss, record.scores) == (alone.loss, alone.scores)


def _deaf(*_: Any) -> None: ...


def test_an_engine_may_be_anything_that_follows_workflows(plan: Plan, tmp_path: Path) -> None:
    """One that carries out the calls in another order gives the same records."""

    class Backwards(LocalEngine):
        @contextmanager
        def opened(self, plan: Plan, out: Path) -> Iterator[Opened]:
            yield Backwards(out)

        def run(self, workflows: Sequence[Workflow[Any]], hear: Any) -> list[Any]:
            return super().run(workflows[::-1], hear)[::-1]

    first = compare(plan, tmp_path / "one").records
    other = compare(plan, tmp_path / "two", engine=Backwards()).records
    assert [(r.seed, r.loss, r.scores) for r in first] == [
        (r.seed, r.loss, r.scores) for r in other
    ]


def test_calls_of_one_search_are_one(plan: Plan) -> None:
    about = Base(name="b", fingerprint="f", parameters=1, device="cpu")
    one, other = runs_of(plan, about, plan.task)
    calls = [Call("search", run, run.search_folder) for run in (one, other)]
    assert calls[0].key == calls[1].key
    assert Call("work", one, one.folder).key != Call("work", other, other.folder).key


def test_a_swallowed_ctrl_c_is_remembered() -> None:
    before = signal.getsignal(signal.SIGINT)
    with remembered_ctrl_c() as check:
        check()
        with suppress(KeyboardInterrupt):  # as a callback of another library may do
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before
