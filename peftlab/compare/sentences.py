"""Three sentences about one comparison, computed from its records: best, balance, frugal.

Without several seeds they describe what was seen and prove nothing; they say so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from peftlab.compare.record import Record
from peftlab.metrics import metric_spec

NEAR = 0.95  # a balanced method keeps this share of the best one's gain over no training


@dataclass(frozen=True)
class Standing:
    """One method's mean over its seeds. cost: numbers that are stored to use it."""

    label: str
    score: float
    cost: int
    trains: bool


def sentences(records: Sequence[Record], metric: str | None = None) -> list[str]:
    """The sentences, or one that says why there are none.

    Args:
        metric: what decides; by default `main_metric`.
    """
    done = [record for record in records if record.status == "finished" and record.scores]
    if not done:
        return ["No run has finished, so there is nothing to compare."]
    metric = metric or main_metric(done[0].scores)
    better_high = metric_spec(metric).higher_is_better
    standings = _standings(done, metric)
    if len(standings) < 2:
        return [f"Only {standings[0].label} has finished; a comparison needs two methods."]
    best = _best(standings, better_high)
    said = [f"Best: {best.label}, with {name(metric)} {show(best.score)} on the test split."]
    trained = [standing for standing in standings if standing.trains]
    if trained:
        said += [_balance(standings, trained, metric, better_high), _frugal(trained, best, metric)]
    seeds = len({record.seed for record in done})
    if seeds == 1:
        said.append(
            "One seed proves no difference between methods: repeat with --seeds 0,1,2 before you "
            "decide."
        )
    return said


def main_metric(scores: dict[str, float]) -> str:
    """ROUGE-L where there is one, else the task's first metric."""
    return "rougeL" if "rougeL" in scores else next(iter(scores))


def name(metric: str) -> str:
    """A metric as people write it."""
    return metric.replace("rouge", "ROUGE-") if metric.startswith("rouge") else metric


def show(score: float) -> str:
    """Three digits that matter, on either scale."""
    return f"{score:.3f}" if abs(score) < 1.5 else f"{score:.1f}"


def _standings(records: Sequence[Record], metric: str) -> list[Standing]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.label].append(record)
    return [
        Standing(
            label,
            fmean(record.scores[metric] for record in group),
            group[0].parameters.stored or 0,
            bool(group[0].parameters.trainable),
        )
        for label, group in groups.items()
    ]


def _best(standings: Sequence[Standing], better_high: bool) -> Standing:
    return sorted(standings, key=lambda s: s.score, reverse=better_high)[0]


def _balance(
    standings: Sequence[Standing], trained: Sequence[Standing], metric: str, better_high: bool
) -> str:
    """The smallest method that keeps nearly all of the best gain over the untrained prompt."""
    best = _best(trained, better_high)
    untrained = [standing for standing in standings if not standing.trains]
    floor = _best(untrained, better_high).score if untrained else 0.0
    least = floor + NEAR * (best.score - floor)
    good = [s for s in trained if (s.score >= least) == better_high or s.score == least]
    chosen = min(good or [best], key=lambda s: s.cost)
    above = "the best untrained prompt" if untrained else "zero"
    if chosen is best:
        return (
            f"Best balance: {chosen.label} too; no method that stores less keeps {NEAR:.0%} of its "
            f"gain over {above}."
        )
    share = (chosen.score - floor) / (best.score - floor) if best.score != floor else 1.0
    return (
        f"Best balance: {chosen.label}, {name(metric)} {show(chosen.score)}: {share:.0%} of "
        f"{best.label}'s gain over {above}, with {chosen.cost:,} stored parameters instead of "
        f"{best.cost:,}."
    )


def _frugal(trained: Sequence[Standing], best: Standing, metric: str) -> str:
    least = min(trained, key=lambda s: s.cost)
    return (
        f"Most frugal: {least.label} stores {least.cost:,} parameters and reaches {name(metric)} "
        f"{show(least.score)} (the best: {show(best.score)})."
    )
