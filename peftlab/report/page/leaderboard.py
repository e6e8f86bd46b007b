"""The leaderboard: the terminal's columns, the intervals, and how each stands against the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

from peftlab.plots.drawing import colour, put, swatch, text_of
from peftlab.plots.scales import Scale, fitted
from peftlab.records.figures import Figure, chosen, scored
from peftlab.report.page.runs import Judged, MethodRuns
from peftlab.report.table import TableRow, cells
from peftlab.verdict.judgement import Verdict
from peftlab.verdict.statistics import Pair

MOST_LINES = 100


@dataclass(frozen=True)
class Head:
    """A column's title. low: small numbers are the good ones."""

    title: str
    low: bool


@dataclass(frozen=True)
class Cell:
    """A number as text, the number to sort by, and whether it is its column's best."""

    text: str
    value: float | None
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A method's row. strip: its interval, drawn; standing: against the best, in a word."""

    label: str
    swatch: str
    roles: Sequence[str]
    note: str
    problem: str | None
    quality: Cell
    interval: str
    strip: str
    standing: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Leaderboard:
    """Heads and lines; `metric` is the main one's name, `better` the order with the best first.

    Of more than `most` lines only so many are seen until all are asked for (`page.css` counts
    them); those that have a `problem` stand last.
    """

    metric: str
    better: str
    heads: Sequence[Head]
    lines: Sequence[Line]
    standings: bool
    confidence: str
    most: int = MOST_LINES

    @property
    def failed(self) -> int:
        """How many lines have no result."""
        return sum(line.problem is not None for line in self.lines)


def leaderboard(judged: Judged) -> Leaderboard:
    """The table of these methods."""
    wanted = _columns(judged)
    means = [[figure.mean(method.records) for figure in wanted] for method in judged.methods]
    alone = [[figure.alone(method.records) for figure in wanted] for method in judged.methods]
    best = [_best([row[i] for row in alone], one.lower) for i, one in enumerate(wanted)]
    outcome = judged.verdict
    shared = _Shared(
        judged.quality, best, roles(outcome), _standings(outcome), _interval_scale(judged)
    )
    lines = [
        _line(method, wanted, own, shared)
        for method, own in zip(judged.methods, means, strict=True)
    ]
    return Leaderboard(
        metric=judged.quality.title,
        better="descending" if judged.higher_is_better else "ascending",
        heads=[Head(figure.title, figure.lower) for figure in wanted],
        lines=lines,
        standings=any(line.standing for line in lines),
        confidence=f"{outcome.confidence:.0%}" if outcome else "",
    )


def roles(outcome: Verdict | None) -> dict[str, list[str]]:
    """By method, what it is best at; a method in the order in which its first role comes."""
    by_label: dict[str, list[str]] = {}
    if outcome is not None:
        named = {
            "best quality": outcome.best,
            "best within limits": outcome.best_within_limits,
            "best balance": outcome.balance,
            "most frugal": outcome.frugal,
        }
        for role, label in named.items():
            if label is not None:
                by_label.setdefault(label, []).append(role)
    return by_label


@dataclass(frozen=True)
class PairLine:
    """Two methods, the better mean first, and what would decide between them."""

    first: str
    second: str
    difference: Cell
    interval: str
    outcome: str
    seeds: Cell
    examples: Cell


def pairs(outcome: Verdict | None) -> list[PairLine]:
    """Every pair, in the order of the verdict."""
    if outcome is None:
        return []
    quality = scored(outcome.metric)
    return [_pair(pair, outcome.higher_is_better, quality) for pair in outcome.pairs]


def _pair(pair: Pair, higher: bool, quality: Figure) -> PairLine:
    first, second, low, high = pair.first, pair.second, pair.low, pair.high
    if (pair.difference < 0) == higher and pair.difference:
        first, second, low, high = second, first, -high, -low
    apart, needed = abs(pair.difference), pair.needed
    claimed = pair.scope == "methods"
    return PairLine(
        first=first,
        second=second,
        difference=Cell(quality.unit.said(apart), apart),
        interval=f"{quality.unit.said(low)} – {quality.unit.said(high)}",
        outcome=pair.outcome if claimed else "no claim",
        seeds=_more(needed.seeds if needed and claimed else None),
        examples=_more(needed.examples if needed and claimed else None),
    )


def _more(number: int | None) -> Cell:
    return Cell("" if number is None else f"{number:,}", number)


def _columns(judged: Judged) -> list[Figure]:
    """The terminal's, without the main metric (which has its interval beside it), and the size."""
    wanted = chosen(judged.records, "usual,adapter_bytes")
    kept = [figure for figure in wanted if figure.name != judged.metric]
    return [replace(figure, unit=figure.unit.loose) for figure in kept]


def _best(values: Sequence[float | None], low: bool) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < 2 or min(known) == max(known):
        return None
    return min(known) if low else max(known)


@dataclass(frozen=True)
class _Shared:
    """What every line is held against: the main metric, each column's best, roles, standings, the
    strips' scale."""

    quality: Figure
    best: Sequence[float | None]
    roles: Mapping[str, Sequence[str]]
    standings: Mapping[str, str]
    scale: Scale | None


def _line(
    method: MethodRuns, wanted: Sequence[Figure], means: Sequence[float | None], shared: _Shared
) -> Line:
    texts = cells(TableRow(method.label, method.records), wanted)
    one, score = method.interval, shared.quality.unit.said
    text = score(method.quality) if method.quality is not None else "–"
    return Line(
        label=method.label,
        swatch=swatch(method.number),
        roles=shared.roles.get(method.label, []),
        note=_note(method),
        problem=method.problem,
        quality=Cell(text, method.quality),
        interval=f"{score(one.low)} – {score(one.high)}" if one else "",
        strip=_strip(method, shared.scale),
        standing=shared.standings.get(method.label, ""),
        cells=[
            Cell(text, mean, mean is not None and mean == top)
            for text, mean, top in zip(texts, means, shared.best, strict=True)
        ],
    )


def _note(method: MethodRuns) -> str:
    seeds = len(method.runs)
    if not method.runs:
        return ""
    failed = f", {len(method.failures)} failed" if method.failures else ""
    return f"{seeds} seed{'s' * (seeds != 1)}{failed}"


def _standings(outcome: Verdict | None) -> dict[str, str]:
    """By method, how it stands against the best; with one seed no claim is made."""
    standings: dict[str, str] = {}
    for pair in outcome.pairs if outcome else ():
        if outcome and outcome.best in (pair.first, pair.second):
            other = pair.second if pair.first == outcome.best else pair.first
            claim = "worse" if pair.outcome == "better" else pair.outcome
            standings[other] = claim if pair.scope == "methods" else "no claim"
    return standings


def _interval_scale(judged: Judged) -> Scale | None:
    """The line that all intervals share, where there are some to compare."""
    shown = [method.interval for method in judged.methods if method.interval]
    if len(shown) < 2:
        return None
    return fitted(
        [end for one in shown for end in (one.low, one.high)], 4.0, 92.0, logarithmic=False
    )


def _strip(method: MethodRuns, scale: Scale | None) -> str:
    """A method's interval on that line."""
    if method.interval is None or scale is None:
        return ""
    root = Element(
        "svg",
        {
            "viewBox": "0 0 96 16",
            "class": f"strip {colour(method.number)}",
            "aria-hidden": "true",
        },
    )
    low, high = scale(method.interval.low), scale(method.interval.high)
    put(root, "line", class_="interval", x1=low, x2=high, y1=8.0, y2=8.0)
    put(root, "circle", class_="mark", cx=scale(method.interval.mean), cy=8.0, r=3.6)
    return text_of(root)
