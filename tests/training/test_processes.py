"""One training by several processes equals that of one: every method, whole or sharded base.

The processes are real: `torchrun` starts two for a group of jobs, over gloo on the CPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from peftlab.methods import REGISTRY
from tests.training.process_worker import Job, encoded, told, work

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LAUNCHER = ("-m", "torch.distributed.run", "--standalone")
PATIENCE = 900  # seconds; the machine may be busy

# Five rows of different lengths a step: one process gets three of them and the other two.
CONFIG = {
    "steps": 4, "batch_size": 5, "evaluate_every": 2, "validation_limit": 5,
    "checkpoint_seconds": 1e9, "learning_rate": 2e-3,  # higher ones enlarge what rounds otherwise
}  # fmt: skip
ACCUMULATED = {**CONFIG, "batch_size": 2, "accumulation": 4}  # rows by process: 2 + 2, twice
_VARIANTS = (
    "lora:rank=4,targets=all-linear,dora=true",
    "lora:rank=4,dropout=0.3",
    "layers:head=true,final_norm=true",
    "prefix_tuning:length=4,reparametrisation=mlp,hidden=16+bitfit",
    "discrete_search:strategy=pez,length=4",
    "discrete_search:strategy=phrases",
)
CASES = (*sorted(REGISTRY), *_VARIANTS)
FAMILIES = ("llama", "gpt2", "gemma3_text", "opt")


def _environment(**changes: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **changes}


def start(processes: int, *command: str, **environment: str) -> subprocess.Popen[str]:
    """Start a module that many times."""
    return subprocess.Popen(
        [sys.executable, *LAUNCHER, "--nproc-per-node", str(processes), *command],
        cwd=ROOT, env=_environment(**environment), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def ended(launcher: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and all that its processes have said."""
    try:
        said, _ = launcher.communicate(timeout=PATIENCE)
    finally:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGKILL)
    return launcher.returncode, said


def done(processes: int, jobs: Sequence[Job]) -> None:
    """Let that many processes do the jobs."""
    code, said = ended(start(processes, "-m", "tests.training.process_worker", encoded(list(jobs))))
    assert code == 0, said


def _read(job: Job) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(job.folder) / "told.json").read_text())
    return content


def _assert_same(got: Mapping[str, Any], expected: Mapping[str, Any], case: str) -> None:
    assert len(got["losses"]) == len(expected["losses"]), case
    for key in ("losses", "validation_loss"):
        assert got[key] == pytest.approx(expected[key], abs=1e-5), (case, key)
    # A search that keeps its prompt has the same loss again, but for the last bit.
    steps = ("steps",) if case.startswith("discrete_search") else ("steps", "best_step")
    for key in (*steps, "truncated", "text"):
        assert got[key] == expected[key], (case, key)


def _family(case: str) -> str:
    return FAMILIES[CASES.index(case) % len(FAMILIES)]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Job]:
    """Every case trained by two processes, which hold the whole base or half of each block."""
    folder = tmp_path_factory.mktemp("two")
    jobs = {
        (case, sharded): Job(case, str(folder / f"{i}-{sharded}"), _family(case), sharded,
                             config=ACCUMULATED if sharded else CONFIG)
        for sharded in (False, True)
        for i, case in enumerate(CASES)
    }  # fmt: skip
    done(2, list(jobs.values()))
    return jobs


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
@pytest.mark.parametrize("case", CASES)
def test_two_processes_lose_what_one_loses(
    case: str, sharded: bool, by_two: dict[tuple[str, bool], Job], tmp_path: Path
) -> None:
    two = by_two[case, sharded]
    one = work(Job(case, str(tmp_path), two.family, config=two.config))
    assert one is not None
    expected = told(one)
    _assert_same(_read(two), expected, case)
    got = load_file(Path(two.folder) / "adapter" / "adaptation.safetensors")
    own = one.adaptation.state.tensors
    assert {n: t.shape for n, t in got.items()} == {n: t.shape for n, t in own.items()}


def test_only_the_first_process_writes(by_two: dict[tuple[str, bool], Job]) -> None:
    lines = (Path(by_two["lora", False].folder) / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[0] == {"step": 0, "processes": 2, "sharded": False}
    assert [line["step"] for line in rows if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in rows if "validation_loss" in line] == [2, 4]


# Trained by two and continued by one, by one and continued by two, and with the other sharding.
_RESUMED = ("lora:rank=4,dropout=0.2", "full", "last_k:k=2", "prompt_tuning:length=4",
            "discrete_search:strategy=pez,length=4")  # fmt: skip
_WAYS = {
    "2 to 1": ((2, False), (1, False)),
    "1 to 2": ((1, False), (2, False)),
    "sharded to 1": ((2, True), (1, False)),
    "1 to sharded": ((1, False), (2, True)),
}


def test_another_number_of_processes_continues(tmp_path: Path) -> None:
    def job(case: str, way: str, sharded: bool, stop: int | None) -> Job:
        folder = tmp_path / f"{_RESUMED.index(case)} {way}"
        return Job(case, str(folder), "llama", sharded, stop, config={**CONFIG, "steps": 6})

    pairs = [(case, way) for case in _RESUMED for way in _WAYS]
    for phase, stop in ((0, 3), (1, None)):
        jobs = {(c, w): job(c, w, _WAYS[w][phase][1], stop) for c, w in pairs}
        for each in (j for (_, w), j in jobs.items() if _WAYS[w][phase][0] == 1):
            trained = work(each)
            assert (trained is None) == (stop is not None)
            if trained is not None:
                (Path(each.folder) / "told.json").write_text(json.dumps(told(trained)))
        done(2, [j for (_, w), j in jobs.items() if _WAYS[w][phase][0] == 2])
    for case in _RESUMED:
        whole = work(job(case, "never stopped", False, None))
        assert whole is not None
        for way in _WAYS:
            _assert_same(_read(job(case, way, False, None)), told(whole), f"{case} {way}")


def test_early_stopping_is_decided_alike(tmp_path: Path) -> None:
    """At a rate that ruins everything the first validation stays the best one."""
    config = {**CONFIG, "steps": 12, "evaluate_every": 1, "patience": 2, "learning_rate": 0.5}
    one = work(Job("lora:rank=4,targets=q+v", str(tmp_path / "one"), config=config))
    two = Job("lora:rank=4,targets=q+v", str(tmp_path / "two"), config=config)
    done(2, [two])
    assert one is not None and one.steps < 12
    assert (_read(two)["steps"], _read(two)["best_step"]) == (one.steps, one.best_step)


def test_fewer_rows_than_processes(tmp_path: Path) -> None:
    """A process without a row takes part all the same."""
    config = {**CONFIG, "batch_size": 1}
    jobs = [
        Job(case, str(tmp_path / f"{i}{sharded}"), sharded=sharded, config=config)
        for sharded in (False, True)
        for i, case in enumerate(("lora:rank=4", "full", "llama_adapter:length=3"))
    ]
    done(2, jobs)
    for two in jobs:
        one = work(Job(two.case, f"{two.folder} alone", config=config))
        assert one is not None
        _assert_same(_read(two), told(one), two.case)


def test_a_process_that_dies_ends_the_others_and_one_process_continues(tmp_path: Path) -> None:
    config = {**CONFIG, "steps": 6, "evaluate_every": 1, "checkpoint_seconds": 0}
    job = Job("lora:rank=4", str(tmp_path / "run"), ends="dies", config=config)
    launcher, begun = (
        start(2, "-m", "tests.training.process_worker", encoded([job])),
        time.monotonic(),
    )
    code, said = ended(launcher)
    assert code != 0 and time.monotonic() - begun < PATIENCE
    if "got no answer" in said:
        assert "the same command continues from the last checkpoint" in said
    else:  # the launcher, which ends the others too, was faster
        assert "(SIGTERM)" in said, said
    resumed = work(replace(job, ends=None))
    whole = work(Job("lora:rank=4", str(tmp_path / "whole"), config=config))
    assert resumed is not None and whole is not None and resumed.steps == 6
    _assert_same(told(resumed), told(whole), "after a death")


def test_a_process_that_hangs_is_given_up(tmp_path: Path) -> None:
    job = Job("lora:rank=4", str(tmp_path / "run"), ends="hangs", config=CONFIG)
    launcher = start(2, "-m", "tests.training.process_worker", encoded([job]), WORKER_PATIENCE="5")
    code, said = ended(launcher)
    assert code != 0
    assert "got no answer from another one, which has ended or hangs" in said, said


def test_what_does_not_fit_together_is_refused_by_all(tmp_path: Path) -> None:
    """Every process says so, none waits for another, and nothing is trained."""
    done_before = Job("lora:rank=4", str(tmp_path / "shared0"), config={**CONFIG, "steps": 1})
    work(done_before)
    (tmp_path / "shared1").mkdir()
    wrong = [
        (Job("lora:rank=4", str(tmp_path / "a"), unlike="seed"),
         "config.seed is 0 in process 0 and 1 in process 1"),
        (Job("lora:rank=4", str(tmp_path / "b"), unlike="rows"), "task is "),
        (Job("lora:rank=4", str(tmp_path / "c"), unlike="family"), "base is "),
        (Job("lora:rank=4", str(tmp_path / "shared"), unlike="folder",
             config={**CONFIG, "steps": 1}), "checkpoint in the run's folder is 1 in"),
        (Job("last_k", str(tmp_path / "d"), sharded=True, config={"optimizer": "adafactor"}),
         "use adamw, or --shard never"),
    ]  # fmt: skip
    done(2, [replace(job, refused=True) for job, _ in wrong])
    for job, message in wrong:
        for process in (0, 1):
            error = Path(f"{job.folder}.{process}.error").read_text()
            assert message in error, error
