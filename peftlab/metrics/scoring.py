"""`score`: the one way in which predictions are scored."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from peftlab.metrics.errors import MetricWarning
from peftlab.metrics.inputs import check_inputs
from peftlab.metrics.registry import Rows, build_metric, metric_spec, split_names


@dataclass(frozen=True)
class Scores:
    """What `score` returns; every mapping is keyed by the metric's name as asked for.

    corpus: the number that papers report.
    per_example: each example's own score (for a corpus metric such as BLEU, that of a corpus
        of this one example), in the order of the predictions.
    rows: sufficient statistics, [examples, width]; `aggregate(name, rows[sample])` is the
        corpus number of a resampled set.
    """

    corpus: dict[str, float] = field(default_factory=dict)
    per_example: dict[str, list[float]] = field(default_factory=dict, repr=False)
    rows: dict[str, Rows] = field(default_factory=dict, repr=False)


def score(
    names: str | Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
) -> Scores:
    """Score predictions against their references.

    Args:
        names: metric names, or one string with commas; options follow a colon
            ("bertscore:model=roberta-large").
        predictions: N generated texts.
        references: N lists of one or more reference texts.

    Raises:
        UnknownMetricError: a name that is not registered.
        MetricInputError: nothing to score, unequal counts, or entries that are not text.
        MetricUnavailableError: a metric's package or files are missing.
    """
    wanted = split_names(names) if isinstance(names, str) else list(names)
    metrics = {name: build_metric(name) for name in wanted}
    check_inputs(predictions, references)
    if len(predictions) == 1:
        _warn_of_constants(wanted)
    result = Scores()
    for name, metric in metrics.items():
        rows = metric.statistics(predictions, references)
        result.rows[name] = rows
        result.corpus[name] = metric.aggregate(rows)
        result.per_example[name] = [metric.aggregate(rows[i : i + 1]) for i in range(len(rows))]
    return result


def _warn_of_constants(names: Sequence[str]) -> None:
    """Say which of these scores would be the same for any text."""
    for name in names:
        constant = metric_spec(name).of_one_example
        if constant is not None:
            warnings.warn(
                f"{name} of one example is always {constant}: its weights tell the examples of a"
                " corpus apart; score several",
                MetricWarning,
                stacklevel=3,
            )


def main_metric(names: Collection[str]) -> str:
    """What methods are ranked by: ROUGE-L where it is scored, else the first of these."""
    return "rougeL" if "rougeL" in names else next(iter(names))


def aggregate(name: str, rows: Rows) -> float:
    """The corpus number of (resampled) rows that `score` returned for this metric."""
    return build_metric(name).aggregate(rows)
