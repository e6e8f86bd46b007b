"""From the folders of runs to what `judge` takes: costs of records, scores of predictions.

Scores are taken per test example from `predictions.jsonl`; for a metric of the whole corpus its
rows are computed again from the predictions, by the code that computed the reported number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from peftlab.errors import InputError
from peftlab.files import read_json, read_jsonl
from peftlab.methods import build
from peftlab.metrics import Metric, build_metric, metric_spec
from peftlab.metrics.means import MeanOverExamples
from peftlab.records.folders import CONFIG, PREDICTIONS
from peftlab.records.record import Record
from peftlab.verdict.components import Array, Runs, StatisticsInputError
from peftlab.verdict.entries import Entry, Failure

BUDGET = ("steps", "epochs", "tokens", "seconds", "batch_size", "accumulation", "max_length")
"""Settings of training that must be the same; rates and the like are the method's own affair."""

_COSTS: dict[str, Callable[[Record], float | None]] = {
    "trainable_parameters": lambda record: record.parameters.trainable,
    "adapter_bytes": lambda record: record.bytes,
    "peak_memory": lambda record: record.peak_memory.train,
    "training_seconds": lambda record: _training_seconds(record),
    "latency": lambda record: record.latency.token if record.latency else None,
    "context_tokens": lambda record: record.context_tokens,
}


def read_entries(runs: Mapping[Path, Record], metric: str) -> list[Entry]:
    """One entry a method, all its seeds together, in the order of the first runs.

    Args:
        runs: records by the folder of their run. Trials of a search, and runs that still go on or
            were left out, are passed over.
        metric: whose scores are judged.

    Raises:
        InputError: a seed twice, predictions missing or damaged, or without the metric.
        StatisticsInputError: scores that are not finite.
    """
    groups: dict[str, dict[Path, Record]] = {}
    for folder, record in runs.items():
        if record.status in ("finished", "failed") and record.trial is None:
            groups.setdefault(record.label, {})[folder] = record
    scorer = build_metric(metric)
    weights = _checkpoints(runs.values())
    return [_entry(label, group, metric, scorer, weights) for label, group in groups.items()]


def _checkpoints(records: Iterable[Record]) -> dict[str, str]:
    """By fingerprint of weights, the checkpoint that they are a number format of, if known."""
    return {r.model.fingerprint: r.model.checkpoint for r in records if r.model.checkpoint}


def _entry(
    label: str,
    group: Mapping[Path, Record],
    metric: str,
    scorer: Metric,
    checkpoints: Mapping[str, str],
) -> Entry:
    seeds = [record.seed for record in group.values()]
    for seed in seeds:
        if seeds.count(seed) > 1:
            both = ", ".join(str(f) for f, record in group.items() if record.seed == seed)
            raise InputError(f"{label} is there twice with seed {seed}: {both}")
    records = [record for record in group.values() if record.status == "finished"]
    folders = [folder for folder, record in group.items() if record.status == "finished"]
    return Entry(
        name=label,
        runs=_runs(label, folders, records, metric, scorer) if records else None,
        costs=costs(records),
        losses={
            split: _mean([getattr(record.loss, split) for record in records])
            for split in ("train", "validation", "test")
        },
        general=_general(records),
        seconds_per_epoch=_mean([_seconds_per_epoch(record) for record in records]),
        search_seconds=_mean([r.search.seconds if r.search else None for r in records]),
        failures=tuple(
            Failure(record.seed, record.error or "no reason was recorded", record.diverged_at)
            for record in group.values()
            if record.status == "failed"
        ),
        conditions=_conditions(label, list(group.values()), checkpoints),
    )


def costs(records: Sequence[Record]) -> dict[str, float | None]:
    """What runs cost, means over them, by the names of `COSTS`; None where nothing was measured."""
    return {name: _mean([cost(record) for record in records]) for name, cost in _COSTS.items()}


def _runs(
    label: str, folders: Sequence[Path], records: Sequence[Record], metric: str, scorer: Metric
) -> Runs:
    scores = [_scores(folder / PREDICTIONS, metric, scorer) for folder in folders]
    if len({len(one) for one in scores}) > 1:
        sizes = ", ".join(f"{f}: {len(one)}" for f, one in zip(folders, scores, strict=True))
        raise StatisticsInputError(f"{label}: numbers of predictions differ between runs ({sizes})")
    untrained = all(record.parameters.trainable == 0 for record in records)
    equal = all(np.array_equal(one, scores[0]) for one in scores)
    # equal scores from different seeds mean that no seed was ever used; a single run may hide one
    fixed = untrained and equal and (len(scores) > 1 or not _seeded(folders[0] / CONFIG))
    return Runs(
        label,
        np.stack(scores[:1] if fixed else scores),
        aggregate=None if isinstance(scorer, MeanOverExamples) else scorer.aggregate,
        deterministic=fixed,
        bounds=metric_spec(metric).bounds,
    )


def _seeded(config: Path) -> bool:
    """Whether another seed could have given another result; what cannot be known counts as such."""
    try:
        found = read_json(config)
        method = build(found["method"], found["settings"])
        return bool(method.seeded or found["task"]["decoding"]["sample"])
    except (InputError, KeyError, TypeError):  # by hand, or by a plugin that is not installed
        return True


def _scores(path: Path, metric: str, scorer: Metric) -> Array:
    """[examples], or the metric's rows [examples, width]."""
    rows = _read(path)
    try:
        if isinstance(scorer, MeanOverExamples):
            return np.array([row["scores"][metric] for row in rows], dtype=np.float64)
        texts = [row["prediction"] for row in rows]
        return scorer.statistics(texts, [row["references"] for row in rows])
    except KeyError as error:
        raise InputError(
            f"{path} has no {error}; evaluate all runs with the metric {metric!r}"
        ) from error


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        rows = read_jsonl(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing, so its run cannot be compared") from error
    return sorted(rows, key=lambda row: row["index"])


def _conditions(
    label: str, records: Sequence[Record], checkpoints: Mapping[str, str]
) -> dict[str, object]:
    """What must be the same for all methods, after checking that it is for one method's seeds."""
    found = [
        {
            "task": record.task.name,
            "rows of the task": record.task.fingerprint,
            "test rows": record.task.test_rows,
            "model": record.model.name,
            "weights of the model": checkpoints.get(
                record.model.fingerprint, record.model.fingerprint
            ),
            **{name: record.train.get(name) for name in BUDGET},
            "search for rates": _search(record),
        }
        for record in records
    ]
    for other in found[1:]:
        for key, value in other.items():
            if value != found[0][key]:
                raise InputError(
                    f"The runs of {label} cannot be taken together: {key} is {found[0][key]!r} and"
                    f" {value!r}. Compare runs of one task, one model and one budget."
                )
    return found[0]


def _search(record: Record) -> str:
    """The budget of the search, which methods without a rate were offered as well."""
    budget = record.budget
    if budget is None or not budget.trials:
        return "none"
    return f"{budget.trials} trials of {budget.trial_share:.0%} of a run"


def _training_seconds(record: Record) -> float | None:
    """Of one run, and of the search that found its rate."""
    own = record.seconds.train
    return own if own is None or record.search is None else own + record.search.seconds


def _seconds_per_epoch(record: Record) -> float | None:
    """Of the steps that were taken; None for what was not trained."""
    if record.seconds.train is None or record.progress is None or record.progress.steps == 0:
        return None
    rows = record.train.get("batch_size", 0) * record.train.get("accumulation", 1)
    seen = rows * record.progress.steps
    return record.seconds.train * record.task.train_rows / seen if seen else None


def _general(records: Sequence[Record]) -> tuple[float, float] | None:
    """Losses of general text, means over the runs where they were measured."""
    known = [record.general for record in records if record.general is not None]
    if not known:
        return None
    return fmean(one.before for one in known), fmean(one.after for one in known)


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of what was measured."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
