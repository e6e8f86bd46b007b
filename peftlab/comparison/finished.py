"""What of a comparison's runs is there already: rates that were found, and finished records."""

from __future__ import annotations

from pathlib import Path

from peftlab.comparison.plan import Run, searches
from peftlab.measure import company
from peftlab.records import folders
from peftlab.records.record import Record


def at_rate(run: Run, out: Path) -> Run | None:
    """The run at the rate that an earlier search has found; None where there was none yet.

    Raises:
        InputError: the search's result is damaged.
    """
    if not searches(run):
        return run
    found = folders.found_rate(out / run.search_folder)
    return None if found is None else run.at(found.rate, found=found)


def finished(run: Run, out: Path) -> Record | None:
    """The finished record of a run, at the rate that was found for it."""
    known = at_rate(run, out)
    return None if known is None else folders.finished(out, known.folder, known.config_hash)


def disturbed(record: Record) -> set[str]:
    """What can be measured again of what others disturbed: of `Others`, step and latency."""
    trained = record.progress is not None and record.progress.steps > 0
    shares = {"step": record.others.step if trained else None, "latency": record.others.latency}
    return {name for name, share in shares.items() if share is not None and share > company.MOST}
