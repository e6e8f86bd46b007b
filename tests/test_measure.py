"""Phases, environment, allocator, precision and fingerprints."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab import measure
from peftlab.bases.fingerprint import fingerprint
from peftlab.errors import InputError
from peftlab.measure import allocator, gauges, precision

MB = 2**20
SLACK = 12 * MB  # Python's and malloc's own, and how finely kernels with many cores count pages
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")


def fill(megabytes: int) -> torch.Tensor:
    return torch.ones(megabytes * MB, dtype=torch.uint8)


def run(program: str, **settings: str) -> str:
    """Output of a program in a fresh process, where nothing has touched malloc's settings yet."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "PEFTLAB_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


# --- phases ---------------------------------------------------------------------------------------


@pytest.fixture(params=["best", pytest.param("linux-sampled", marks=pytest.mark.slow), "sampled"])
def every_cpu_gauge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with this system's best gauge and with those that other systems get."""
    if request.param == "best":
        return gauges.gauge(torch.device("cpu")).method
    if request.param == "linux-sampled":
        if sys.platform != "linux":
            pytest.skip("needs Linux's /proc")
        monkeypatch.setattr(gauges, "_can_reset_high_water", lambda process: False)
    else:
        monkeypatch.setattr(gauges, "_STATM", Path("/nowhere"))
    return str(request.param)


def test_successive_phases_have_their_own_peaks(every_cpu_gauge: str) -> None:
    peaks = {}
    kept = fill(30)
    for name, size in {"large": 200, "small": 40, "none": 0, "medium": 90}.items():
        with measure.phase(name, "cpu") as p:
            block = fill(size)
            threading.Event().wait(5 * gauges.INTERVAL)  # sampled gauges need to see it
            del block
        assert p.method == every_cpu_gauge
        peaks[name] = p.growth_bytes
        assert size * MB - SLACK <= p.growth_bytes <= size * MB + SLACK, name
        assert p.peak_bytes - p.growth_bytes == p.start_bytes >= kept.numel()
    assert peaks["large"] > peaks["medium"] > peaks["small"] > peaks["none"]


@ON_LINUX
def test_a_spike_shorter_than_any_sample_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "INTERVAL", 3600.0)
    with measure.phase("spike", "cpu") as p:
        fill(150)
    assert p.method == "linux-high-water"
    assert 150 * MB - SLACK <= p.growth_bytes <= 150 * MB + SLACK


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.truncate(256 * MB)
    return path


@ON_LINUX
def test_pages_of_a_mapped_file_do_not_count(large_file: Path) -> None:
    with (
        large_file.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        before = gauges.linux_pages().file
        with measure.phase("map", "cpu") as p:
            touched = sum(mapped[:: mmap.PAGESIZE])
        assert touched == 0
        assert gauges.linux_pages().file - before > 200 * MB, "the file was not mapped at all"
        assert p.growth_bytes < SLACK
        with measure.phase("beside", "cpu") as p:  # mapped pages that stand still
            fill(100)
        assert 100 * MB - SLACK <= p.growth_bytes <= 100 * MB + SLACK
        assert p.uncertainty_bytes < SLACK


@ON_LINUX
def test_uncertainty_covers_a_spike_while_a_file_is_being_mapped(
    large_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst case: a spike that no sample sees, before the file's pages come in."""
    monkeypatch.setattr(gauges, "INTERVAL", 3600.0)
    with (
        large_file.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        measure.phase("both", "cpu") as p,
    ):
        fill(100)
        sum(mapped[:: mmap.PAGESIZE])
    assert p.growth_bytes <= 100 * MB + SLACK
    assert p.growth_bytes + p.uncertainty_bytes >= 100 * MB - SLACK


def test_a_phase_inside_another_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(seconds)))
    with measure.phase("train", "cpu") as outer:
        first = fill(60)
        with measure.phase("evaluate", "cpu") as inner:
            fill(150)
        del first
    assert (outer.seconds, inner.seconds) == (2.0, 1.0)  # two stretches of one tick, and one
    assert 60 * MB - SLACK <= outer.growth_bytes <= 60 * MB + SLACK
    assert 150 * MB - SLACK <= inner.growth_bytes <= 150 * MB + SLACK
    assert len(outer.readings) == 2


def test_a_failing_block_is_measured_and_its_error_passed_on() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        measure.phase("outer", "cpu") as outer,
        measure.phase("inner", "cpu") as inner,
    ):
        raise ZeroDivisionError
    assert inner.peak_bytes > 0
    assert outer.peak_bytes > 0
    with measure.phase("after", "cpu") as p:
        pass
    assert p.growth_bytes < SLACK
    assert not [t for t in threading.enumerate() if t.name == "peftlab-memory"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_phases_have_their_own_peaks() -> None:
    for size in (200, 40, 90):
        with measure.phase("gpu", "cuda") as p:
            torch.ones(size * MB, dtype=torch.uint8, device="cuda")
        assert (p.method, p.growth_bytes) == ("cuda", size * MB)
        assert p.reserved_bytes is not None
        assert p.reserved_bytes >= size * MB


# --- environment ----------------------------------------------------------------------------------


def test_environment_is_json_with_what_a_record_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PEFTLAB_HUB_TOKEN", "s3cret")
    environment = measure.environment()
    assert json.loads(json.dumps(environment)) == environment
    assert environment["versions"]["torch"] == torch.__version__
    assert {"python", "peftlab", "transformers", "numpy"} <= set(environment["versions"])
    assert environment["hardware"]["memory_bytes"] > 100 * MB
    assert environment["hardware"]["cpu"]
    assert len(environment["hardware"]["gpus"]) == torch.cuda.device_count()
    assert environment["threads"]["within"] == torch.get_num_threads()
    assert environment["settings"]["OMP_NUM_THREADS"] == "1"
    assert "s3cret" not in json.dumps(environment)


def test_environment_knows_the_commit_of_its_own_checkout_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "peftlab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr("peftlab.version.PACKAGE", package)
    assert measure.environment()["git"] is None  # an installed package
    git("init", "-q")
    git("add", "peftlab")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")
    assert measure.environment()["git"] == {"commit": commit, "changed": False}
    (package / "__init__.py").write_text("x = 1\n")
    assert measure.environment()["git"] == {"commit": commit, "changed": True}


# --- allocator ------------------------------------------------------------------------------------

FAULTS = """
import resource, torch
from peftlab.measure import tune_allocator
tuned = tune_allocator()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(16 * 2**20, dtype=torch.float32)
before = faults()
for _ in range(5):
    torch.ones(16 * 2**20, dtype=torch.float32)
print(tuned, faults() - before)
"""
NEEDS_GLIBC = pytest.mark.skipif(not allocator._is_glibc_malloc(), reason="needs glibc's malloc")


@NEEDS_GLIBC
def test_a_tuned_allocator_keeps_freed_memory() -> None:
    tuned, faults = run(FAULTS).split()
    assert tuned == "True"
    assert int(faults) < 1000  # 64 MiB five times are 82,000 pages, or 160 huge ones


@pytest.mark.parametrize(
    "settings",
    [
        {"PEFTLAB_MALLOC": "0"},
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"},
    ],
    ids=str,
)
def test_the_allocator_is_left_alone_when_asked(settings: dict[str, str]) -> None:
    program = "from peftlab.measure import tune_allocator; print(tune_allocator())"
    assert run(program, **settings) == "False"


@NEEDS_GLIBC
def test_phases_stay_separate_with_a_tuned_allocator() -> None:
    """Kept memory is handed back between phases, or the first peak would hide the others."""
    program = """
import torch
from peftlab.measure import phase, tune_allocator
tune_allocator()
for size in (200, 40):
    with phase("p", "cpu") as p:
        torch.ones(size * 2**20, dtype=torch.uint8)
    print(round(p.growth_bytes / 2**20))
"""
    large, small = map(int, run(program).split())
    assert large == pytest.approx(200, abs=SLACK / MB)
    assert small == pytest.approx(40, abs=SLACK / MB)


SHAPES = """
import torch
from peftlab.measure import gauges, tune_allocator
tune_allocator()
weight = torch.ones(256, 256, dtype=torch.bfloat16)
for rows in range(1000, 1400):
    torch.nn.functional.linear(torch.ones(rows, 256, dtype=torch.bfloat16), weight)
    if rows == 1100:
        before = gauges.linux_pages().own
print(gauges.linux_pages().own - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_kernels_of_shapes_that_never_come_back_are_not_kept() -> None:
    many = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "1024"}
    bounded, chosen = int(run(SHAPES)), int(run(SHAPES, **many))
    assert bounded <= 0.5 * chosen + SLACK, "a user's own setting holds, ours keeps less"


# --- precision ------------------------------------------------------------------------------------


def test_explicit_precisions_are_checked_for_the_device() -> None:
    assert measure.choose_precision([], "cpu", "fp32").dtype == torch.float32
    assert measure.choose_precision([], "cpu", "bf16").dtype == torch.bfloat16
    with pytest.raises(InputError, match="fp16 needs a CUDA device"):
        measure.choose_precision([], "cpu", "fp16")
    with pytest.raises(InputError, match='Did you mean "bf16"'):
        measure.choose_precision([], "cpu", "bf6")
    with pytest.raises(InputError, match="is not here"):
        measure.choose_precision([], f"cuda:{torch.cuda.device_count()}", "fp32")


@pytest.mark.parametrize(("gain", "expected"), [(2.0, "bf16"), (1.3, "bf16"), (1.1, "fp32")])
def test_auto_takes_bf16_only_where_it_clearly_pays(
    monkeypatch: pytest.MonkeyPatch, gain: float, expected: str
) -> None:
    timed: list[Any] = []

    def speedup(matrices: Any, device: str, threads: int) -> float:
        timed.append(matrices)
        return gain

    monkeypatch.setattr(precision, "_speedup", speedup)
    shapes = [(5000, 8), (8,), (8, 24), (24, 8), (4, 8), (8, 24)]
    chosen = measure.choose_precision(shapes, "cpu")
    assert (chosen.name, chosen.speedup) == (expected, gain)
    assert timed == [((8, 24), (24, 8), (2048, 8))]


def test_a_hopeless_format_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def seconds(rows: torch.Tensor, weight: torch.Tensor, *, bf16: bool) -> float:
        calls.append(bf16)
        return 9.0 if bf16 else 1.0

    monkeypatch.setattr(precision, "_seconds", seconds)
    assert precision._speedup.__wrapped__(((8, 8), (8, 9)), "cpu", 1) == pytest.approx(1 / 9)
    assert calls == [False, True]


def test_auto_times_the_real_thing_once() -> None:
    shapes = [(48, 32), (32, 48)]
    first = measure.choose_precision(shapes, "cpu", "auto")
    assert first.name in {"fp32", "bf16"}
    assert first.speedup is not None
    assert first.speedup > 0
    assert measure.choose_precision(shapes, "cpu", "auto") == first


def test_auto_without_matrices_is_fp32() -> None:
    assert measure.choose_precision([(3,)], "cpu").name == "fp32"


# --- fingerprint ----------------------------------------------------------------------------------


def tensors() -> dict[str, torch.Tensor]:
    return {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor(1.5, dtype=torch.bfloat16),
        "c": torch.zeros(0, 4),
    }


def test_fingerprint_is_the_same_in_every_process_and_order() -> None:
    here = fingerprint(tensors())
    assert here == "xxh3-128:f2761d420675647691d30ba171be22a7"
    assert fingerprint(reversed(tensors().items())) == here
    assert fingerprint(torch.nn.ParameterDict(tensors()).items()) == here


@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.arange(6.0).reshape(3, 2)},
        {"a": torch.arange(6.0).reshape(2, 3).nextafter(torch.tensor(9.0))},
        {"b": torch.tensor(1.5)},
        {"c": torch.zeros(4, 0)},
        {"d": torch.zeros(0)},
    ],
    ids=["shape", "lowest bits", "type", "empty shape", "name"],
)
def test_fingerprint_changes_with_anything(change: dict[str, torch.Tensor]) -> None:
    assert fingerprint(tensors() | change) != fingerprint(tensors())


def test_fingerprint_ignores_strides() -> None:
    turned = torch.arange(6.0).reshape(2, 3).t().contiguous().t()
    assert not turned.is_contiguous()
    assert fingerprint(tensors() | {"a": turned}) == fingerprint(tensors())


def test_fingerprint_of_no_data_is_refused() -> None:
    with pytest.raises(InputError, match="meta device"):
        fingerprint({"w": torch.zeros(2, device="meta")})
