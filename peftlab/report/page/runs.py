"""The runs that a page can use: predictions read, methods ranked, what is unusable named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from peftlab.errors import InputError
from peftlab.metrics import main_metric
from peftlab.plots.palette import COLOURED
from peftlab.records import folders
from peftlab.records.figures import Figure, scored
from peftlab.records.reading import Prediction, StoredRun, StoredRuns, predictions
from peftlab.records.record import Record
from peftlab.verdict.entries import Entry
from peftlab.verdict.judgement import Verdict
from peftlab.verdict.measured import costs
from peftlab.verdict.outcome import said, verdict
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
        metric: the main one; `quality` is its figure.
        front: by cost, the names on the Pareto front.
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
    predictions: Mapping[str, Sequence[Prediction]]
    problems: list[str] = field(default_factory=list)

    @property
    def quality(self) -> Figure:
        """What methods are ranked by."""
        return scored(self.metric)

    @property
    def finished(self) -> list[MethodRuns]:
        """Methods with a finished run."""
        return [method for method in self.methods if method.runs]

    @property
    def records(self) -> list[Record]:
        """Of all runs, those that failed included."""
        return [record for method in self.methods for record in [*method.records, *method.failures]]


def judged(stored: StoredRuns) -> Judged:
    """Read what lies beside the records, and judge.

    Raises:
        InputError: nothing usable is left.
    """
    runs, texts, problems = _usable(stored)
    scores = [run.record.scores for run in runs if run.record.scores]
    metric = main_metric(scores[0]) if scores else "rougeL"
    higher = not scored(metric).lower
    groups = _ranked(runs, metric, higher)
    outcome, sentences = _outcome(runs, metric, problems)
    intervals = {one.name: one for one in outcome.qualities} if outcome else {}
    methods = [
        _method(label, i if i < COLOURED else None, group, metric, intervals.get(label))
        for i, (label, group) in enumerate(groups.items())
    ]
    front = outcome.front if outcome else {}
    return Judged(methods, metric, higher, front, outcome, sentences, texts, problems)


def _usable(
    stored: StoredRuns,
) -> tuple[list[StoredRun], dict[str, list[Prediction]], list[str]]:
    """Runs whose files can be read, the predictions of each label's first seed, and problems."""
    runs: list[StoredRun] = []
    texts: dict[str, list[Prediction]] = {}
    problems = list(stored.problems)
    for run in sorted(stored.runs, key=lambda run: run.record.seed):
        if run.record.status == "finished":
            try:
                rows = predictions(run.folder)
                if not rows:
                    raise InputError(f"{run.folder / folders.PREDICTIONS} is missing or empty")
            except InputError as error:
                problems.append(f"left out: {error}")
                continue
            texts.setdefault(run.record.label, rows)
        runs.append(run)
    if not runs:
        raise InputError(f"no run can be shown ({'; '.join(problems)})")
    return runs, texts, problems


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


def _outcome(
    runs: Sequence[StoredRun], metric: str, problems: list[str]
) -> tuple[Verdict | None, list[str]]:
    """The verdict and its words, or why there is none; adds what was left out of it."""
    try:
        outcome = verdict(runs, metric, problems)
    except InputError as error:
        return None, [str(error)]
    return outcome, said(outcome)
