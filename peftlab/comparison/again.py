"""Times that were taken while others used the machine, taken again once the other runs are done.

Of a training twenty steps, and the latency whole. Where others are still there, the record stays as
it is, and says what share of the cores they had: such a figure is shown as uncertain, and nothing
is judged by it. The same command tries again.
"""

from __future__ import annotations

from pathlib import Path

from peftlab.comparison.finished import disturbed
from peftlab.comparison.hosts import Host, host
from peftlab.comparison.plan import Run
from peftlab.comparison.processes import Say
from peftlab.comparison.work import hold_against_prediction, lock
from peftlab.measure import company, in_company, tune_allocator
from peftlab.records import folders
from peftlab.records.record import NAME, Record


def again(_say: Say, run: Run, out: Path, _trunk: Path | None = None) -> Record:
    """Measure again what others disturbed in a finished run; returns its record as it now is."""
    tune_allocator()
    folder = out / run.folder
    with lock(folder):
        record, own = Record.read(folder / NAME), host(run)
        if "latency" in (wanted := disturbed(record)):
            _latency(record, own, folder)
        if "step" in wanted and record.progress is not None:
            _step(record, own, run, record.progress.steps)
        hold_against_prediction(record)
        record.write(folder)
    return record


def _latency(record: Record, own: Host, folder: Path) -> None:
    own.take_up(folder / folders.ADAPTER)
    with in_company() as others:
        latency = own.latency()
    if _little(others.share):
        record.latency, record.others.latency = latency, others.share


def _step(record: Record, own: Host, run: Run, steps: int) -> None:
    with in_company() as others:
        step, train = own.pace(run, steps)
    if _little(others.share):
        record.seconds.step, record.seconds.train_again = step, train
        record.others.step = others.share


def _little(share: float | None) -> bool:
    return share is not None and share <= company.MOST
