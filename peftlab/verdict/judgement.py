"""From the measured entries of a comparison to a verdict: what is best, at what price, how surely.

`judge` is the way in. What is chosen how: docs/statistics.md; the sentences: verdict_words.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from peftlab.errors import InputError
from peftlab.verdict.choices import (
    Ranked,
    balances,
    beyond_limits,
    fronts,
    most_frugal,
)
from peftlab.verdict.cost_words import company_sentences, cost_sentences, failure_sentences
from peftlab.verdict.entries import (
    COSTS,
    Entry,
    Failure,
    MixedRecordsError,
    check_conditions,
    check_limits,
)
from peftlab.verdict.statistics import (
    CONFIDENCE,
    DEFAULT_MARGIN,
    Interval,
    Pair,
    Statistics,
    analyse,
)
from peftlab.verdict.words import Findings, caution, quality_sentences, quick_sentences

__all__ = [
    "COSTS",
    "DEFAULT_WITHIN",
    "Entry",
    "Failure",
    "MixedRecordsError",
    "Verdict",
    "judge",
]

DEFAULT_WITHIN = 0.05


@dataclass(frozen=True)
class Verdict:
    """What a comparison says. Names are the entries'.

    Attributes:
        metric: whose score "quality" is.
        margin: a difference of it that does not matter; None when no run finished.
        qualities: mean and interval of each finished method, in the order of the entries.
        pairs: every pair, with its outcome.
        best, frugal, balance: None when no run finished. frugal: within `within` of the best.
        best_within_limits: None when nothing is within the limits, or there are none.
        beyond_limits: by method, the limits that it breaks.
        front: by cost, the methods on the Pareto front, cheapest first.
        sentences: the verdict in words.
        quick: best, best balance, most frugal, without claims; and what was not judged.
        caution: must stand beside any table of methods with one seed; None when all have more.
    """

    metric: str
    higher_is_better: bool
    confidence: float
    within: float
    limits: dict[str, float]
    margin: float | None = None
    qualities: tuple[Interval, ...] = ()
    pairs: tuple[Pair, ...] = ()
    best: str | None = None
    best_within_limits: str | None = None
    frugal: str | None = None
    balance: str | None = None
    beyond_limits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    front: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    caution: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: no NaN, no infinity."""
        return asdict(self)


def judge(
    entries: Sequence[Entry],
    *,
    metric: str = "rougeL",
    higher_is_better: bool = True,
    margin: float | str = DEFAULT_MARGIN,
    limits: Mapping[str, float] | None = None,
    within: float = DEFAULT_WITHIN,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
    declared: Collection[tuple[str, str]] = (),
) -> Verdict:
    """Judge the methods of one comparison.

    Args:
        entries: one a method, failed ones included.
        metric: its name, for the sentences; the entries' `runs` hold its scores.
        higher_is_better: False for losses and error rates.
        margin: a difference in quality that does not matter: in the metric's units, or "2%" of
            the best.
        limits: the most that is allowed of a cost, by the names of `COSTS`.
        within: share of the best quality that the most frugal method may lack.
        confidence, resamples: of the statistics.
        declared: pairs of names that are compared on purpose, see `declared_pairs`.

    Raises:
        MixedRecordsError: the entries are of different tasks, models or budgets.
        InputError: an unknown limit, a share outside 0 … 1, or scores that cannot be compared.
    """
    limits = dict(limits or {})
    check_limits(limits)
    if not 0 <= within < 1:
        raise InputError(f"within is {within}; expected a share of at least 0 and below 1: 0.05")
    check_conditions(entries)
    verdict = Verdict(metric, higher_is_better, confidence, within, limits)
    runs = [replace(entry.runs, name=entry.name) for entry in entries if entry.runs is not None]
    if not runs:
        nothing = "No run finished, so there is nothing to compare."
        return replace(verdict, sentences=(nothing, *failure_sentences(entries)))
    statistics = analyse(
        runs,
        margin=margin,
        confidence=confidence,
        higher_is_better=higher_is_better,
        resamples=resamples,
        declared=declared,
    )
    means = {one.name: one.mean for one in statistics.intervals}
    findings = _find(
        metric, Ranked.of(entries, means, higher_is_better), statistics, within, limits
    )
    return replace(
        verdict,
        margin=statistics.margin,
        qualities=statistics.intervals,
        pairs=statistics.pairs,
        best=findings.best,
        best_within_limits=findings.best_within_limits,
        frugal=findings.frugal,
        balance=findings.balance,
        beyond_limits=findings.beyond,
        front=findings.front,
        sentences=(
            *quality_sentences(findings),
            *cost_sentences(findings.ranked.entries),
            *failure_sentences(entries),
        ),
        quick=(*quick_sentences(findings), *company_sentences(findings.ranked.entries)),
        caution=caution(findings),
    )


def _find(
    metric: str, ranked: Ranked, statistics: Statistics, within: float, limits: Mapping[str, float]
) -> Findings:
    beyond = {
        entry.name: reasons for entry in ranked.entries if (reasons := beyond_limits(entry, limits))
    }
    fitting = [entry.name for entry in ranked.entries if entry.name not in beyond]
    return Findings(
        metric=metric,
        ranked=ranked,
        statistics=statistics,
        within=within,
        limits=limits,
        beyond=beyond,
        best_within_limits=fitting[0] if limits and fitting else None,
        frugal=most_frugal(ranked, within),
        balances=balances(ranked),
        front=fronts(ranked),
    )
