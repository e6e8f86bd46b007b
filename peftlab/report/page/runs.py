"""The runs that a page can use: predictions read, methods ranked, what is unusable named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from peftlab.errors import InputError
from peftlab.metrics import metric_spec
from peftlab.plots.palette import COLOURED
from peftlab.records import folders
from peftlab.records.reading import StoredRun, StoredRuns
from peftlab.records.record import Record
from peftlab.verdict.entries import Entry
from peftlab.verdict.judgement import Verdict
from peftlab.verdict.measured import costs
from peftlab.verdict.outcome import main_metric, said, verdict
from peftlab.verdict.statistics import Interval


@dataclass(frozen=True)
class MethodRuns:
    """All runs of one label.

    Attributes:
        number: of its colour and mark, for the best ones; None for the others.
        runs: the finished ones.
        problem: why there is none; `failures` say why of each that failed.
        quality: mean of the main metric over the finished runs.
        costs: by the names of the verdict's costs.
    """

    label: str
    number: int | None
    runs: Sequence[StoredRun]
    failures: Sequence[Record]
    quality: float | None
    interval: Interval | None
    costs: Mapping[str, float | None]

    @property
    def problem(self) -> str | None:
        """Why there is nothing to show."""
        if self.runs:
            return None
        if not self.failures:
            return "not finished"
        return f"{self.failures[0].status}: {self.failures[0].error}"

    @property
    def records(self) -> list[Record]:
        """Of the finished runs."""
        return [run.record for run in self.runs]


@dataclass(frozen=True)
class Judged:
    """What a page is made of: methods (best first, failed last), and what is said of them.

    Attributes:
        metric: the main one. front: by cost, the names on the Pareto front.
        verdict: None when there is none; `sentences` then say why.
        predictions: by label, the rows of its first finished seed.
        problems: a sentence for each file that was left out.
    """

    methods: list[MethodRuns]
    metric: str
    higher_is_better: bool
    front: Mapping[str, Sequence[str]]
    verdict: Verdict | None
    sentences: list[str]
    predictions: Mapping[str, Sequence[Mapping[str, Any]]]
    problems: list[str] = field(default_factory=list)

    @property
    def finished(self) -> list[MethodRuns]:
        """Methods with a finished run."""
        return [method for method in self.methods if method.runs]

    @property
    def records(self) -> list[Record]:
        """Of all runs, those that failed included."""
        return [record for method in self.methods for record in [*method.records, *method.failures]]


def judged(found: StoredRuns) -> Judged:
    """Read what lies beside the records, and judge.

    Raises:
        InputError: nothing usable is left.
    """
    runs, predictions, problems = _usable(found)
    scored = [run.record.scores for run in runs if run.record.scores]
    metric = main_metric(scored[0]) if scored else "rougeL"
    higher = metric_spec(metric).higher_is_better
    groups = _ranked(runs, metric, higher)
    outcome, sentences = _outcome(runs, metric)
    intervals = {one.name: one for one in outcome.qualities} if outcome else {}
    methods = [
        _method(label, i if i < COLOURED else None, group, metric, intervals.get(label))
        for i, (label, group) in enumerate(groups.items())
    ]
    front = outcome.front if outcome else {}
    return Judged(methods, metric, higher, front, outcome, sentences, predictions, problems)


def _usable(
    found: StoredRuns,
) -> tuple[list[StoredRun], dict[str, list[dict[str, Any]]], list[str]]:
    """Runs whose files can be read, the predictions of each label's first seed, and problems."""
    runs: list[StoredRun] = []
    predictions: dict[str, list[dict[str, Any]]] = {}
    problems = list(found.problems)
    for run in sorted(found.runs, key=lambda run: run.record.seed):
        if run.record.status == "finished":
            try:
                rows = _checked(run.folder)
            except InputError as error:
                problems.append(f"left out: {error}")
                continue
            predictions.setdefault(run.record.label, rows)
        runs.append(run)
    if not runs:
        raise InputError(f"no run can be shown ({'; '.join(problems)})")
    return runs, predictions, problems


def _checked(folder: Path) -> list[dict[str, Any]]:
    path = folder / folders.PREDICTIONS
    if not path.exists():
        raise InputError(f"{path} is missing")
    rows = folders.predictions(folder)
    for i, row in enumerate(rows):
        complete = isinstance(row, dict) and {"index", "prediction", "references"} <= row.keys()
        if not complete:
            raise InputError(f"{path} is damaged: line {i + 1} has no prediction with references")
    return sorted(rows, key=lambda row: row["index"])


def _ranked(runs: Sequence[StoredRun], metric: str, higher: bool) -> dict[str, list[StoredRun]]:
    """Runs by label: the best mean first, then those without a score."""
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(run.record.label, []).append(run)

    def place(label: str) -> tuple[bool, float]:
        quality = _quality(groups[label], metric)
        return quality is None, (-quality if higher else quality) if quality is not None else 0.0

    return {label: groups[label] for label in sorted(groups, key=place)}


def _quality(runs: Sequence[StoredRun], metric: str) -> float | None:
    finished = [run.record for run in runs if run.record.status == "finished"]
    known = [record.scores[metric] for record in finished if metric in record.scores]
    return fmean(known) if known else None


def _method(
    label: str,
    number: int | None,
    group: Sequence[StoredRun],
    metric: str,
    interval: Interval | None,
) -> MethodRuns:
    finished = [run for run in group if run.record.status == "finished"]
    return MethodRuns(
        label=label,
        number=number,
        runs=finished,
        failures=[run.record for run in group if run.record.status in ("failed", "left out")],
        quality=_quality(group, metric),
        interval=interval,
        costs=_costs([run.record for run in finished]),
    )


def _costs(records: Sequence[Record]) -> dict[str, float | None]:
    entry = Entry("", None, costs(records))
    return {name: entry.cost(name) for name in entry.costs}


def _outcome(runs: Sequence[StoredRun], metric: str) -> tuple[Verdict | None, list[str]]:
    """The verdict and its words, or why there is none."""
    try:
        found = verdict(runs, metric)
    except InputError as error:
        return None, [str(error)]
    return found, said(found)
