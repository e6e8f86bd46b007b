"""Ways to find the peak memory of a stretch of time, one a platform.

What counts is memory that the process itself filled: on a GPU the allocator's tensors, on a CPU the
anonymous pages. Pages of mapped files (weights opened by safetensors, kept activations on disk,
shared libraries) are the kernel's cache, can be dropped at any time, and are left out.

- `cuda`: the allocator's own peak, reset at the start. Exact.
- `linux-high-water`: the kernel's high-water mark of resident memory (VmHWM), reset through
  /proc/self/clear_refs, so that no spike is missed however short. It includes file pages, which are
  subtracted: exactly where their number stood still. Where it moved, the most that was seen is
  subtracted, unless a sample of the anonymous pages was higher; `uncertainty` says how much too low
  the answer can then be.
- `linux-sampled`: where the kernel forbids the reset, the highest sample of the anonymous pages.
- `sampled`: on other systems the highest sample of the process's unique set.

Sampled peaks miss spikes shorter than the interval.
"""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import psutil

from peftlab.measure.allocator import trim

if TYPE_CHECKING:
    import torch

INTERVAL: Final = 0.01  # seconds between samples; one costs a few microseconds on Linux

_STATUS = Path("/proc/self/status")
_STATM = Path("/proc/self/statm")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER = "5"


@dataclass(frozen=True)
class Reading:
    """Memory of a stretch, in bytes: at its start, at its peak, and how far the peak may be off."""

    start: int
    peak: int
    uncertainty: int = 0  # the true peak is at most this much higher
    reserved: int | None = None  # peak of what the allocator holds of the GPU, CUDA only


class Gauge(Protocol):
    """Measures one stretch after another."""

    method: str

    def begin(self) -> None:
        """Forget the past, as far as the platform can, and start a stretch."""

    def end(self) -> Reading:
        """End the stretch."""


def gauge(device: torch.device) -> Gauge:
    """The best gauge for the device on this system."""
    if device.type == "cuda":
        return CudaGauge(device)
    if not _STATM.exists():
        process = psutil.Process()
        return SampledGauge("sampled", lambda: Pages(int(process.memory_full_info().uss), 0))
    if not _can_reset_high_water(os.getpid()):
        return SampledGauge("linux-sampled", linux_pages)
    return HighWaterGauge()


def held(device: torch.device) -> int:
    """Bytes that are held at this moment, counted as the gauges count them."""
    if device.type == "cuda":
        import torch

        return torch.cuda.memory_allocated(device)
    if _STATM.exists():
        return linux_pages().own
    return int(psutil.Process().memory_full_info().uss)


class CudaGauge:
    """Peak statistics of torch's allocator."""

    method = "cuda"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = 0

    def begin(self) -> None:
        """Collect garbage, give cached blocks back and reset the peaks."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        self._start = torch.cuda.memory_allocated(self._device)

    def end(self) -> Reading:
        """The peaks since `begin`."""
        import torch

        return Reading(
            start=self._start,
            peak=torch.cuda.max_memory_allocated(self._device),
            reserved=torch.cuda.max_memory_reserved(self._device),
        )


@dataclass(frozen=True)
class Pages:
    """Resident memory in bytes: the process's own, and that of mapped files and shared memory."""

    own: int
    file: int


def linux_pages() -> Pages:
    """What is resident now."""
    resident, shared = map(int, _STATM.read_bytes().split()[1:3])
    page = os.sysconf("SC_PAGE_SIZE")
    return Pages((resident - shared) * page, shared * page)


class Sampler:
    """A thread that keeps the extremes of `read()`."""

    def __init__(self, read: Callable[[], Pages]) -> None:
        self._read = read
        first = read()
        self.most_own = first.own
        self.least_file = self.most_file = first.file
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peftlab-memory", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._take()

    def _take(self) -> None:
        now = self._read()
        self.most_own = max(self.most_own, now.own)
        self.least_file = min(self.least_file, now.file)
        self.most_file = max(self.most_file, now.file)

    def stop(self) -> None:
        """Take a last sample and end the thread."""
        self._stop.set()
        self._thread.join()
        self._take()


class SampledGauge:
    """The highest sample."""

    def __init__(self, method: str, read: Callable[[], Pages]) -> None:
        self.method = method
        self._read = read
        self._start = 0
        self._sampler: Sampler | None = None

    def begin(self) -> None:
        """Give freed memory back and start sampling."""
        gc.collect()
        trim()
        self._start = self._read().own
        self._sampler = Sampler(self._read)

    def end(self) -> Reading:
        """The highest sample since `begin`."""
        assert self._sampler is not None, "end() without begin()"
        self._sampler.stop()
        return Reading(self._start, self._sampler.most_own)


class HighWaterGauge:
    """Linux's high-water mark less the file pages, with samples to know how many those were."""

    method = "linux-high-water"

    def __init__(self) -> None:
        self._start = 0
        self._sampler: Sampler | None = None

    def begin(self) -> None:
        """Give freed memory back and reset the mark."""
        gc.collect()
        trim()
        self._sampler = Sampler(linux_pages)
        self._start = self._sampler.most_own
        _CLEAR_REFS.write_text(_RESET_HIGH_WATER)

    def end(self) -> Reading:
        """The mark since `begin`."""
        assert self._sampler is not None, "end() without begin()"
        mark = _high_water()
        sampler = self._sampler
        sampler.stop()
        peak = max(mark - sampler.most_file, sampler.most_own)
        return Reading(self._start, peak, max(0, mark - sampler.least_file - peak))


def _high_water() -> int:
    match = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), flags=re.MULTILINE)
    if match is None:
        raise OSError(f"{_STATUS} has no VmHWM")
    return int(match[1]) * 1024


@cache
def _can_reset_high_water(_process: int) -> bool:
    """Whether the kernel lets us reset the mark and tells it (some sandboxes do not)."""
    try:
        _CLEAR_REFS.write_text(_RESET_HIGH_WATER)
        _high_water()
    except OSError:
        return False
    return True
