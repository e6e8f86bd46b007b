"""What it takes to repeat a comparison: settings, environment, the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from peftlab.errors import InputError
from peftlab.files import read_json
from peftlab.records import folders
from peftlab.records.reading import metrics
from peftlab.records.record import Record
from peftlab.report.page.runs import Judged
from peftlab.units import size

MOST_VALUES = 5  # different values of one setting that are listed


@dataclass(frozen=True)
class Fact:
    """A name and a value."""

    name: str
    value: str


@dataclass(frozen=True)
class Setting:
    """How one method was set and how far its training went."""

    label: str
    settings: str
    rate: str
    steps: str
    best_step: str
    tokens: str
    seeds: str


@dataclass(frozen=True)
class Facts:
    """All of it, ready to be shown. command: None when it was not recorded."""

    task: Sequence[Fact]
    training: Sequence[Fact]
    environment: Sequence[Fact]
    settings: Sequence[Setting]
    command: str | None


def facts(out: Path, judged: Judged) -> Facts:
    """From the records, and from `comparison.json` in the folder or above it."""
    records = judged.records
    return Facts(
        task=_task(records),
        training=_shared([record.train for record in records]),
        environment=_shared([_readable(r.environment) for r in records if r.environment]),
        settings=[_setting(method.label, method) for method in judged.finished],
        command=_command(out, judged),
    )


def _task(records: Sequence[Record]) -> list[Fact]:
    first = records[0]
    return [
        Fact("task", first.task.name),
        Fact("rows of the task", first.task.fingerprint),
        Fact("training rows", f"{first.task.train_rows:,}"),
        Fact("test rows", f"{first.task.test_rows:,}"),
        *([Fact("test rows left out, too long", f"{first.skipped:,}")] if first.skipped else []),
        Fact("base", first.model.name),
        *_weights(records),
        Fact("parameters of the base", f"{first.model.parameters:,}"),
    ]


def _weights(records: Sequence[Record]) -> list[Fact]:
    """One fingerprint, or one for each number format."""
    fingerprints = {record.model.dtype: record.model.fingerprint for record in records}
    if list(fingerprints) == ["fp32"]:
        return [Fact("weights of the base", fingerprints["fp32"])]
    return [
        Fact(f"weights of the base in {dtype}", digest) for dtype, digest in fingerprints.items()
    ]


def _shared(environments: Sequence[Mapping[str, Any]]) -> list[Fact]:
    """Each name with its value, or with the values that runs differ in."""
    flat = [dict(_leaves("", values)) for values in environments]
    facts = []
    for name in dict.fromkeys(name for values in flat for name in values):
        seen = list(dict.fromkeys(values.get(name, "not given") for values in flat))
        more = f" and {len(seen) - MOST_VALUES} more" if len(seen) > MOST_VALUES else ""
        text = "; ".join(seen[:MOST_VALUES]) + more
        facts.append(Fact(name, f"differs: {text}" if len(seen) > 1 else text))
    return facts


def _readable(environment: Mapping[str, Any]) -> dict[str, Any]:
    """With bytes as people write them."""
    readable = dict(environment)
    if isinstance(hardware := readable.get("hardware"), Mapping):
        readable["hardware"] = {
            name.removesuffix("_bytes"): size(value)
            if name.endswith("_bytes") and isinstance(value, int)
            else value
            for name, value in hardware.items()
        }
    return readable


def _leaves(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            leaf
            for key, part in value.items()
            for leaf in _leaves(f"{name} · {key}" if name else str(key), part)
        ]
    if isinstance(value, bool):
        return [(name, "yes" if value else "no")]
    if value is None or value == []:
        return [(name, "none")]
    return [(name, str(value))]


def _setting(label: str, method: Any) -> Setting:
    records: list[Record] = method.records
    values = records[0].settings
    progress = [record.progress for record in records if record.progress]
    rates = [_peak_rate(run.folder) for run in method.runs]
    return Setting(
        label=label,
        settings=", ".join(f"{name} = {_plain(value)}" for name, value in values.items()) or "none",
        rate=_numbers([rate for rate in rates if rate], "{:.2g}"),
        steps=_numbers([one.steps for one in progress], "{:,.0f}"),
        best_step=_numbers([one.best_step for one in progress], "{:,.0f}"),
        tokens=f"{fmean([one.tokens for one in progress]):,.0f}" if progress else "–",
        seeds=", ".join(str(record.seed) for record in records),
    )


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value) or "empty"


def _numbers(values: Sequence[float], form: str) -> str:
    return ", ".join(dict.fromkeys(form.format(value) for value in values)) or "–"


def _peak_rate(folder: Path) -> float | None:
    """The highest learning rate that training logged."""
    try:
        return max((row["lr"] for row in metrics(folder) if "lr" in row), default=None)
    except InputError:
        return None  # `curves` names the damaged file


def _command(out: Path, judged: Judged) -> str | None:
    above = [out, *(run.folder.parent.parent for m in judged.methods for run in m.runs)]
    for folder in above:
        try:
            command = read_json(folder / folders.COMPARISON).get("command")
        except InputError:
            continue
        if isinstance(command, str):
            return command
    return None
