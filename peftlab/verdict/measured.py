"""From the folders of runs to what `judge` takes: costs of records, scores of predictions.

Scores are taken per test example from `predictions.jsonl`; for a metric of the whole corpus its
rows are computed again from the predictions, by the code that computed the reported number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from peftlab.errors import InputError, PeftlabError
from peftlab.files import read_json
from peftlab.methods import build
from peftlab.metrics import Metric, build_metric, metric_spec
from peftlab.metrics.means import MeanOverExamples
from peftlab.records.figures import named
from peftlab.records.folders import CONFIG, PREDICTIONS
from peftlab.records.reading import predictions
from peftlab.records.record import Record
from peftlab.verdict.components import Aggregate, Array, Runs, StatisticsInputError
from peftlab.verdict.entries import COSTS, Entry, Failure

BUDGET = ("steps", "epochs", "tokens", "seconds", "batch_size", "accumulation", "max_length")
"""Settings of training that must be the same; rates and the like are the method's own affair."""


def read_entries(
    runs: Mapping[Path, Record],
    metric: str,
    problems: list[str] | None = None,
    cut: bool = False,
) -> list[Entry]:
    """One entry a method, all its seeds together, in the order of the first runs.

    Args:
        runs: records by the folder of their run. Trials of a search, and runs that still go on or
            were left out, are passed over.
        metric: whose scores are judged.
        problems: takes a sentence for each run whose predictions cannot be used, and the others
            are judged; without it, the first such run is an error.
        cut: runs that have read more of the test split than others are judged by what all have.

    Raises:
        InputError: a seed twice, predictions missing or damaged, or without the metric.
        StatisticsInputError: scores that are not finite.
    """
    scorer = build_metric(metric)
    weights = _checkpoints(runs.values())
    scores: dict[Path, Array] = {}
    groups: dict[str, dict[Path, Record]] = {}
    for folder, record in runs.items():
        if record.status not in ("finished", "failed") or record.trial is not None:
            continue
        if record.status == "finished":
            try:
                scores[folder] = scores_of(folder, metric, scorer)
            except PeftlabError as error:
                if problems is None:
                    raise
                problems.append(f"left out of the verdict: {error}")
                continue
        groups.setdefault(record.label, {})[folder] = record
    if cut and scores:
        fewest = min(map(len, scores.values()))
        scores = {folder: own[:fewest] for folder, own in scores.items()}
        runs = {folder: _of_so_many(record, fewest) for folder, record in runs.items()}
        groups = {label: {f: runs[f] for f in group} for label, group in groups.items()}
    elif problems is not None:
        for folder, problem in _shorter(scores):
            problems.append(f"left out of the verdict: {problem}")
            del groups[runs[folder].label][folder]
    return [
        _entry(label, group, metric, scores, weights) for label, group in groups.items() if group
    ]


def _of_so_many(record: Record, rows: int) -> Record:
    task = record.task.model_copy(update={"test_rows": rows})
    return record.model_copy(update={"task": task})


def _shorter(scores: Mapping[Path, Array]) -> list[tuple[Path, str]]:
    """Runs with another number of predictions than most, and what is wrong with them."""
    counts = Counter(map(len, scores.values())).most_common(2)
    if len(counts) < 2 or counts[0][1] == counts[1][1]:
        return []  # all alike, or nobody knows who is right
    most = counts[0][0]
    return [
        (folder, f"{folder / PREDICTIONS} has {len(own)} predictions; other runs have {most}")
        for folder, own in scores.items()
        if len(own) != most
    ]


def _checkpoints(records: Iterable[Record]) -> dict[str, str]:
    """By fingerprint of weights, the checkpoint that they are a number format of, if known."""
    return {r.model.fingerprint: r.model.checkpoint for r in records if r.model.checkpoint}


def _entry(
    label: str,
    group: Mapping[Path, Record],
    metric: str,
    scores: Mapping[Path, Array],
    checkpoints: Mapping[str, str],
) -> Entry:
    seeds = [record.seed for record in group.values()]
    for seed in seeds:
        if seeds.count(seed) > 1:
            both = ", ".join(str(f) for f, record in group.items() if record.seed == seed)
            raise InputError(f"{label} is there twice with seed {seed}: {both}")
    records = [record for record in group.values() if record.status == "finished"]
    own = {folder: scores[folder] for folder in group if folder in scores}
    return Entry(
        name=label,
        runs=_runs(label, own, records, metric) if records else None,
        costs={name: cost.alone(records) for name, cost in COSTS.items()},
        others=_others(records),
        losses={
            split: _mean([getattr(record.loss, split) for record in records])
            for split in ("train", "validation", "test")
        },
        loss_errors={
            split: _mean([getattr(record.loss, f"{split}_error") for record in records])
            for split in ("train", "validation", "test")
        },
        general=_general(records),
        seconds_per_epoch=_mean([_seconds_per_epoch(record) for record in records]),
        search_seconds=named("search_seconds").alone(records),
        failures=tuple(
            Failure(record.seed, record.error or "no reason was recorded", record.diverged_at)
            for record in group.values()
            if record.status == "failed"
        ),
        conditions=_conditions(label, list(group.values()), checkpoints),
    )


def costs(records: Sequence[Record]) -> dict[str, float | None]:
    """What runs cost, means over them, by the names of `COSTS`; None where nothing was measured."""
    return {name: cost.mean(records) for name, cost in COSTS.items()}


def _others(records: Sequence[Record]) -> dict[str, float]:
    """By cost, what share of the cores others had while it was measured, where that matters."""
    shares = {name: cost.shared(records) for name, cost in COSTS.items()}
    return {name: share for name, share in shares.items() if share is not None}


def _runs(label: str, scored: Mapping[Path, Array], records: Sequence[Record], metric: str) -> Runs:
    scorer = build_metric(metric)
    scores = list(scored.values())
    if len({len(one) for one in scores}) > 1:
        sizes = ", ".join(f"{folder}: {len(one)}" for folder, one in scored.items())
        raise StatisticsInputError(f"{label}: numbers of predictions differ between runs ({sizes})")
    untrained = all(record.parameters.trainable == 0 for record in records)
    equal = all(np.array_equal(one, scores[0]) for one in scores)
    # equal scores from different seeds mean that no seed was ever used; a single run may hide one
    fixed = untrained and equal and (len(scores) > 1 or not _seeded(next(iter(scored)) / CONFIG))
    return Runs(
        label,
        np.stack(scores[:1] if fixed else scores),
        aggregate=aggregate_of(scorer),
        deterministic=fixed,
        bounds=metric_spec(metric).bounds,
    )


def aggregate_of(scorer: Metric) -> Aggregate | None:
    """A metric's corpus number of its rows, as `Runs` takes it; None of a mean over examples."""
    return None if isinstance(scorer, MeanOverExamples) else scorer.aggregate


def _seeded(config: Path) -> bool:
    """Whether another seed could have given another result; what cannot be known counts as such."""
    try:
        described = read_json(config)
        method = build(described["method"], described["settings"])
        return bool(method.seeded or described["task"]["decoding"]["sample"])
    except (InputError, KeyError, TypeError):  # by hand, or by a plugin that is not installed
        return True


def scores_of(folder: Path, metric: str, scorer: Metric) -> Array:
    """A run's scores, [examples], or the metric's rows [examples, width].

    Raises:
        InputError: no predictions, damaged ones, or others than the metric needs.
    """
    path, rows = folder / PREDICTIONS, predictions(folder)
    if not rows:
        raise InputError(f"{path} is missing or empty, so its run cannot be compared")
    try:
        if isinstance(scorer, MeanOverExamples):
            scores = np.array([row["scores"][metric] for row in rows], dtype=np.float64)
        else:
            texts = [row["prediction"] for row in rows]
            scores = scorer.statistics(texts, [row["references"] for row in rows])
    except KeyError as error:
        raise InputError(
            f"{path} has no {error}; evaluate all runs with the metric {metric!r}"
        ) from error
    if not np.isfinite(scores).all():
        raise StatisticsInputError(f"{path} has scores that are not finite")
    return scores


def _conditions(
    label: str, records: Sequence[Record], checkpoints: Mapping[str, str]
) -> dict[str, object]:
    """What must be the same for all methods, after checking that it is for one method's seeds."""
    conditions = [
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
    for other in conditions[1:]:
        for key, value in other.items():
            if value != conditions[0][key]:
                raise InputError(
                    f"The runs of {label} cannot be taken together: {key} is "
                    f"{conditions[0][key]!r} and {value!r}. "
                    "Compare runs of one task, one model and one budget."
                )
    return conditions[0]


def _search(record: Record) -> str:
    """The budget of the search, which methods without a rate were offered as well."""
    budget = record.budget
    if budget is None or not budget.trials:
        return "none"
    return f"{budget.trials} trials of {budget.trial_share:.0%} of a run"


def _seconds_per_epoch(record: Record) -> float | None:
    """Of the steps that were taken; None for what was not trained, or not alone on the machine."""
    train = named("train_seconds").alone([record])
    if train is None or record.progress is None or record.progress.steps == 0:
        return None
    size, accumulation = record.train.get("batch_size"), record.train.get("accumulation", 1)
    if not (isinstance(size, int) and isinstance(accumulation, int)):
        return None
    seen = size * accumulation * record.progress.steps
    return train * record.task.train_rows / seen if seen else None


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
