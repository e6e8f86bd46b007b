"""The outcome of some runs: the verdict over their records, and what of it is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftlab.metrics import main_metric, metric_spec
from peftlab.records.reading import StoredRun
from peftlab.verdict.declared import declared_pairs
from peftlab.verdict.judgement import Verdict, judge
from peftlab.verdict.measured import read_entries
from peftlab.verdict.timed import Timed, applied


def verdict(
    runs: Sequence[StoredRun], metric: str | None = None, problems: list[str] | None = None
) -> Verdict:
    """Judge finished and failed runs by one metric.

    Args:
        metric: by default ROUGE-L where there is one, else the task's first.
        problems: as of `read_entries`.

    Raises:
        MixedRecordsError: runs of different tasks, models or budgets.
        InputError: nothing to compare, or fewer test examples than statistics need.
    """
    scored = [run.record.scores for run in runs if run.record.scores]
    metric = metric or (main_metric(scored[0]) if scored else "rougeL")
    out = runs[0].folder.parent.parent if runs else Path()
    timed = Timed.read(out) if runs else None
    if timed is not None:
        runs = [run for run in runs if str(run.folder.relative_to(out)) in timed.runs]
    metric = metric if timed is None else timed.metric
    by_folder = {run.folder: run.record for run in runs}
    entries = read_entries(by_folder, metric, problems, cut=timed is not None)
    judged = judge(
        entries,
        metric=metric,
        higher_is_better=metric_spec(metric).higher_is_better,
        declared=declared_pairs([entry.name for entry in entries]),
    )
    return judged if timed is None else applied(judged, timed, entries)


def said(outcome: Verdict) -> list[str]:
    """The verdict in words: all that several seeds allow, or three sentences and a caution."""
    if outcome.caution is None:
        return list(outcome.sentences)
    return [*(outcome.quick or outcome.sentences), outcome.caution]
