"""Seconds and peak memory of each phase of a run on its own, and what others used of the cores.

A phase inside another (an evaluation in the middle of training) is not part of it: the outer one's
clock and gauge stop while the inner one runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftlab.measure.company import Company, Counters, counters
from peftlab.measure.gauges import Gauge, Reading, gauge

if TYPE_CHECKING:
    import torch


@dataclass
class Phase:
    """What a phase took. Complete once its `with` block has ended."""

    name: str
    device: str
    method: str  # how memory was measured, see gauges.py
    seconds: float = 0.0  # wall time without phases inside
    readings: list[Reading] = field(default_factory=list)  # one for each uninterrupted stretch
    company: Company = field(default_factory=Company)

    @property
    def others(self) -> float | None:
        """Share of the cores that processes outside the comparison used; None: not known."""
        return self.company.share

    @property
    def peak_bytes(self) -> int:
        """Most memory held at any moment, what was there at the start included."""
        return max(reading.peak for reading in self.readings)

    @property
    def start_bytes(self) -> int:
        """Memory held when the phase began."""
        return self.readings[0].start

    @property
    def growth_bytes(self) -> int:
        """Peak above the start: what the phase itself needed."""
        return self.peak_bytes - self.start_bytes

    @property
    def uncertainty_bytes(self) -> int:
        """By how much the true peak may be higher."""
        highest = max(reading.peak + reading.uncertainty for reading in self.readings)
        return highest - self.peak_bytes

    @property
    def reserved_bytes(self) -> int | None:
        """Peak of what torch's allocator held of the GPU; None on a CPU."""
        reserved = [r.reserved for r in self.readings if r.reserved is not None]
        return max(reserved) if reserved else None


class _Stretch:
    """The running part of a phase, and how to stop and continue it."""

    def __init__(self, phase: Phase, device: torch.device, gauge: Gauge) -> None:
        self._phase = phase
        self._device = device
        self._gauge = gauge
        self._since = 0.0
        self._begin: Counters | None = None

    def start(self) -> None:
        self._gauge.begin()
        self._wait()
        self._begin = counters()
        self._since = time.perf_counter()

    def stop(self) -> None:
        self._wait()
        self._phase.seconds += time.perf_counter() - self._since
        self._phase.company.add(self._begin, counters())
        self._phase.readings.append(self._gauge.end())

    def _wait(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


_running: list[_Stretch] = []  # the process's phases, innermost last


@contextmanager
def phase(name: str, device: str | torch.device) -> Iterator[Phase]:
    """Measure a block, as in `with phase("train", device) as p: ...`; then read `p.peak_bytes`.

    Memory is the process's, so phases may nest but not run in several threads at once.
    """
    import torch

    device = torch.device(device)
    measured_by = gauge(device)
    measured = Phase(name, str(device), measured_by.method)
    stretch = _Stretch(measured, device, measured_by)
    if _running:
        _running[-1].stop()
    _running.append(stretch)
    stretch.start()
    try:
        yield measured
    finally:
        stretch.stop()
        _running.pop()
        if _running:
            _running[-1].start()
