"""What of a comparison's runs is there already: rates that were found, and finished records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from peftlab.comparison.plan import Run, searches
from peftlab.errors import InputError
from peftlab.files import read_json
from peftlab.measure import company
from peftlab.records import folders
from peftlab.records.record import NAME, Record

_OF_A_RUN = {"config_hash", "label", "method", "settings", "seed", "files", "samples", "general"}
_SHOWN = 40  # characters of a value that is shown


def at_rate(run: Run, out: Path) -> Run | None:
    """The run at the rate that an earlier search has found; None where there was none yet.

    Raises:
        InputError: the search's result is damaged.
    """
    if not searches(run):
        return run
    search = folders.found_rate(out / run.search_folder)
    return None if search is None else run.at(search.rate, searched=search)


def finished(run: Run, out: Path) -> Record | None:
    """The finished record of a run, at the rate that was found for it."""
    known = at_rate(run, out)
    return None if known is None else folders.finished(out, known.folder, known.config_hash)


def disturbed(record: Record) -> set[str]:
    """What can be measured again of what others disturbed: of `Others`, step and latency."""
    trained = record.progress is not None and record.progress.steps > 0
    shares = {"step": record.others.step if trained else None, "latency": record.others.latency}
    return {name for name, share in shares.items() if share is not None and share > company.MOST}


def other_settings(runs: Sequence[Run], out: Path) -> str:
    """Which settings are others than those of finished runs that would else not be made again.

    One line, empty where no run has a finished one of its method and seed beside it. Of several,
    that counts which differs least.
    """
    said: dict[str, None] = {}
    again = 0
    for run in runs:
        if run.left_out is None and finished(run, out) is None:
            earlier = [_differences(run, values) for values in _earlier(run, out)]
            if earlier:
                again += 1
                closest: list[str] = min(earlier, key=len)
                said |= dict.fromkeys(closest)
    if not again:
        return ""
    return f"Settings are others than those of {again} finished runs, which are made anew: " + (
        "; ".join(said)
    )


def but_for_samples(runs: Sequence[Run], out: Path) -> list[dict[str, Any]]:
    """The settings of the folder's runs, finished or not, that these runs will stand beside.

    Of any method, seed and base format: what is compared reads the same rows.
    """
    shared = [_shared(run.resolved()) for run in runs[:1]]
    configs = (values for _, values in _configs(out, f"*/seed-*/{folders.CONFIG}"))
    return [values for values in configs if _shared(values) in shared]


def _shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What all runs of a comparison have in common, but for how much they read."""
    return {
        name: value for name, value in _flat(settings) if name.partition(".")[0] not in _OF_A_RUN
        and name not in ("model.fingerprint", "train.learning_rate")
    }  # fmt: skip


def _earlier(run: Run, out: Path) -> Iterator[dict[str, Any]]:
    """The settings of finished runs with the same seed whose method was called the same."""
    for path, values in _configs(out, f"*/seed-{run.seed}/{folders.CONFIG}"):
        if values.get("method") != run.method.name:
            continue
        with suppress(InputError):
            record = Record.read(path.with_name(NAME))
            if run.label in (record.label, values.get("label")) and record.status == "finished":
                yield values


def _configs(out: Path, pattern: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The settings of runs that can be read."""
    for path in sorted(out.glob(pattern)):
        with suppress(InputError):
            yield path, read_json(path)


def _differences(run: Run, earlier: Mapping[str, Any]) -> list[str]:
    """`train.steps 4 → 5`, for every setting; a rate that was searched for is none."""
    before, now = dict(_flat(earlier)), dict(_flat(run.resolved()))
    names = [n for n in {**before, **now} if n not in ("config_hash", "label")]
    if searches(run):
        names.remove("train.learning_rate")
    return [
        f"{name} {_told(before, name)} → {_told(now, name)}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", list(value) if isinstance(value, tuple) else value


def _told(values: Mapping[str, Any], name: str) -> str:
    text = repr(values[name]) if name in values else "not said"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
