"""A comparison on a real Ray cluster of two nodes: the same records, whatever dies on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from peftlab.comparison.plan import Plan
from peftlab.comparison.ray.engine import Ray
from peftlab.comparison.run import Compared, compare
from peftlab.comparison.settings import SearchConfig
from peftlab.errors import InputError
from peftlab.methods import parse
from peftlab.records import folders, reading
from peftlab.records.record import Record
from peftlab.tasks import Task
from tests.comparison.odd_methods import Odd, Slow
from tests.comparison.ray_cluster import PATIENCE, Cluster, wait_for
from tests.comparison.test_comparison import Counting, make

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

STEPS = 600  # long enough that something can die on the way
ON_THE_WAY = 60  # lines of a log by then, many checkpoints among them
MEASURED = {"seconds", "latency", "peak_memory", "environment", "predicted", "others"}
UNTIMED = {"seconds": 0, "others": None}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one CPU each."""
    made = Cluster()
    try:
        made.start()
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def engine(cluster: Cluster, notices: list[str]) -> Ray:
    return Ray(cluster.address, notice=notices.append)


def lasting(record: Record) -> dict[str, Any]:
    """All of a record but what was measured with a clock or a gauge."""
    values = record.model_dump(exclude=MEASURED)
    if record.progress is not None:
        values["progress"].pop("tokens_per_second")
    if record.search is not None:
        values["search"] |= UNTIMED
    return values


def results(out: Path, without: str = "-") -> dict[str, Any]:
    """A comparison's files by name, without what clocks and gauges say, and without a method."""
    files: dict[str, Any] = {}
    for path in sorted(out.glob("*/**/*")):
        name = path.relative_to(out).as_posix()
        if name.startswith(without):
            continue
        if path.name == "record.json":
            files[name] = lasting(Record.read(path))
        elif path.name == "metrics.jsonl":
            files[name] = [line | {"tokens_per_second": 0} for line in reading.metrics(path.parent)]
        elif path.name == "search.json":
            files[name] = json.loads(path.read_text()) | UNTIMED
        elif path.is_file() and path.name not in (".lock", "checkpoint.safetensors", "error.txt"):
            files[name] = path.read_bytes()
    return files


def test_both_engines_give_the_same_records(
    engine: Ray, notices: list[str], base: str, task: Task, tmp_path: Path
) -> None:
    """Searched rates, seeds, and runs whose process dies included."""
    methods = (*parse("hard_prompt,lora:rank=2,last_k:k=1"), Odd(how="killed"))
    plan = make(base, task, methods, seeds=(0, 1), search=SearchConfig(trials=2))
    here = compare(plan, tmp_path / "here").records
    there = compare(plan, tmp_path / "there", engine=engine).records
    assert [lasting(record) for record in there] == [lasting(record) for record in here]
    # Of a method without a seed one run knows it all.
    assert [record.status for record in here] == [
        *["finished"] * 3, "failed", *["finished"] * 2, "failed",
    ]  # fmt: skip
    assert results(tmp_path / "there", "odd") == results(tmp_path / "here", "odd")
    assert notices[0] == "Ray: 2 nodes, 1 CPU a run, at most 2 runs at once."
    assert notices[1].startswith("odd:how=killed, seed 0: tried again, since on ")
    assert all("SIGKILL" in notice for notice in notices[1:])


def test_what_is_finished_is_not_made_again(
    engine: Ray, base: str, task: Task, tmp_path: Path
) -> None:
    plan = make(base, task, "hard_prompt")
    first = compare(plan, tmp_path).records
    watcher = Counting()
    assert compare(plan, tmp_path, watcher, engine=engine).records == first
    assert not watcher.made


@pytest.fixture(scope="module")
def long_plan(base: str, task: Task) -> Plan:
    plan = make(base, task, (Slow(rank=2),), seeds=(0, 1))
    often = replace(plan.config, steps=STEPS // 2, evaluate_every=100, checkpoint_seconds=0.1)
    return replace(plan, config=often)


@pytest.fixture(scope="module")
def whole(long_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The runs that nothing disturbed, on this machine's processes."""
    out = tmp_path_factory.mktemp("whole")
    compare(long_plan, out)
    return results(out)


class Disturbed:
    """A comparison during which something happens, once both runs are on their way."""

    def __init__(self, plan: Plan, out: Path, engine: Ray, happens: Callable[[], None]) -> None:
        self.out, self.happens = out, happens
        self.before: dict[Path, list[dict[str, Any]]] = {}
        self.failure: BaseException | None = None
        thread = threading.Thread(target=self._disturb, daemon=True)
        thread.start()
        self.compared: Compared = compare(plan, out, engine=engine)
        thread.join(PATIENCE)
        if self.failure is not None:
            raise self.failure

    def _disturb(self) -> None:
        try:
            wait_for(self._on_the_way, "both runs")
            self.before = {p: self._lines(p) for p in self.out.glob("slow*/seed-*/metrics.jsonl")}
            self.happens()
        except BaseException as error:
            self.failure = error

    def _on_the_way(self) -> bool:
        logs = list(self.out.glob("slow*/seed-*/metrics.jsonl"))
        return len(logs) == 2 and all(len(self._lines(path)) > ON_THE_WAY for path in logs)

    @staticmethod
    def _lines(path: Path) -> list[dict[str, Any]]:
        return reading.metrics(path.parent)

    def went_on_from(self, path: Path) -> int:
        """How many lines a log kept of before: their speeds would be others if made again."""
        now = self._lines(path)
        pairs = zip(self.before[path], now, strict=False)
        return sum(old == new for old, new in pairs)


def first_worker_dies(cluster: Cluster) -> Callable[[], None]:
    def happens() -> None:
        cluster.workers()[0].kill()

    return happens


def test_a_run_goes_on_when_its_worker_is_killed(
    cluster: Cluster,
    engine: Ray,
    notices: list[str],
    long_plan: Plan,
    whole: dict[str, Any],
    tmp_path: Path,
) -> None:
    disturbed = Disturbed(long_plan, tmp_path, engine, first_worker_dies(cluster))
    assert results(tmp_path) == whole
    assert len([n for n in notices if "tried again" in n]) == 1
    assert all(disturbed.went_on_from(path) > 3 for path in disturbed.before)


def test_results_are_fetched_from_nodes_that_do_not_see_the_folder(
    cluster: Cluster,
    engine: Ray,
    notices: list[str],
    long_plan: Plan,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The nodes look for a lock of another name; and a worker dies here too."""
    monkeypatch.setattr(folders, "LOCK", ".another-lock")
    disturbed = Disturbed(long_plan, tmp_path, engine, first_worker_dies(cluster))
    assert "Files are fetched" in notices[0]
    assert results(tmp_path) == whole
    assert len([n for n in notices if "tried again" in n]) == 1
    assert all(disturbed.went_on_from(path) > 3 for path in disturbed.before)
    assert not list(tmp_path.glob("**/trunk"))


def test_runs_of_a_lost_node_go_on_elsewhere(
    cluster: Cluster,
    engine: Ray,
    notices: list[str],
    long_plan: Plan,
    whole: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Nothing of the node is left, not even the run that would have saved."""
    last = len(cluster.nodes) - 1
    try:
        disturbed = Disturbed(long_plan, tmp_path, engine, lambda: cluster.kill(last))
    finally:
        cluster.start()
    assert results(tmp_path) == whole
    assert len([n for n in notices if "tried again" in n]) == 1
    assert all(disturbed.went_on_from(path) > 3 for path in disturbed.before)


def test_ctrl_c_saves_and_the_same_command_continues(
    cluster: Cluster, base: str, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = f"--model {base} --task {data} -o max_new_tokens=4 --methods lora:rank=2"
    steps = 3 * STEPS
    sizes = f"--steps {steps} --batch-size 2 --evaluate-every 50 --device cpu --out {out}"
    there = f"--engine ray --address {cluster.address}"
    words = [
        sys.executable,
        "-m",
        "peftlab",
        "compare",
        *f"{options} {sizes} {there}".split(),
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: bool(list(out.glob("lora*/seed-0/metrics.jsonl"))) or bool(process.poll()))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    (folder,) = out.glob("lora*/seed-0")
    taken = len(reading.metrics(folder))
    assert (folder / folders.CHECKPOINT).exists()
    assert 0 < taken < steps
    first = reading.metrics(folder)
    done = subprocess.run(words, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[1/1] lora:rank=2, seed 0: test loss" in done.stdout
    again = reading.metrics(folder)
    assert again[: len(first) - 1] == first[:-1], "it went on from its checkpoint"
    assert [line["step"] for line in again if "loss" in line] == list(range(1, steps + 1))


def test_no_node_is_large_enough(engine: Ray, long_plan: Plan, tmp_path: Path) -> None:
    engine.cpus = 64
    with pytest.raises(InputError, match=r"needs 64 CPU on one node.*at most 1 CPU"):
        compare(long_plan, tmp_path, engine=engine)


def test_a_cluster_without_gpus(engine: Ray, long_plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the cluster's 2 nodes has a CPU and a GPU"):
        compare(replace(long_plan, device="cuda"), tmp_path, engine=engine)
    with pytest.raises(InputError, match="cpu or cuda was expected"):
        compare(replace(long_plan, device="cuda:1"), tmp_path, engine=engine)


def test_nodes_that_cannot_take_part_are_named(base: str, task: Task, tmp_path: Path) -> None:
    """Of three nodes one lacks the model, and one has another transformers."""
    cache = tmp_path / "hub" / "models--peftlab--tiny"
    shutil.copytree(base, cache / "snapshots" / "0")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0")
    other = tmp_path / "other" / "transformers-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 9.9.9\n")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    path = os.pathsep.join([str(other.parent), str(Path(__file__).parents[2])])
    made = Cluster()
    try:
        made.start(**offline)
        made.start(**offline | {"HF_HUB_CACHE": str(tmp_path / "nothing")})
        made.start(**offline, PYTHONPATH=path)
        plan = make("peftlab/tiny", task, "hard_prompt")
        with pytest.raises(InputError, match=r"2 of 3 nodes cannot take part") as caught:
            compare(plan, tmp_path / "out", engine=Ray(made.address))
        assert "cannot load a model from 'peftlab/tiny'" in str(caught.value)
        assert "it has transformers 9.9.9 instead of" in str(caught.value)
        made.kill(2)
        made.kill(1)
        wait_for(lambda: len(_alive(made)) == 1, "Ray to see that two nodes are gone")
        assert compare(plan, tmp_path / "out", engine=Ray(made.address)).records[0].scores
    finally:
        made.stop()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(made.folder) in _said(p)]


def test_a_cluster_with_a_token(long_plan: Plan, tmp_path: Path) -> None:
    made = Cluster()
    try:
        made.start(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        with pytest.raises(InputError, match=r"asks for a token: set RAY_AUTH_MODE=token"):
            compare(long_plan, tmp_path, engine=Ray(made.address))
    finally:
        made.stop()


def _alive(cluster: Cluster) -> list[Any]:
    ray.init(cluster.address, log_to_driver=False)
    try:
        return [node for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()


def _said(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or [])
