"""The state of a comparison within a given time, as its folder keeps it, and its verdict in words.

Fixed before the first test example is scored, and kept when the comparison goes on with more time:
margin, metric, length of the trainings, sizes of the looks, and the look that was aimed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from peftlab.errors import InputError, refusing
from peftlab.files import read_json, write_json
from peftlab.records.figures import scored
from peftlab.records.folders import WITHIN
from peftlab.units import duration
from peftlab.verdict.choices import cheapest
from peftlab.verdict.entries import Entry
from peftlab.verdict.judgement import Verdict
from peftlab.verdict.numbers import counted, listed
from peftlab.verdict.statistics import Outcome, Pair
from peftlab.verdict.words import interval_of, other_of


class TimedPair(BaseModel):
    """A pair of finalists, as the look left it that decided it, or else the last one.

    level: of the pair's interval. seeds, examples: of the look.
    seconds: what would be spent until it is decided, about; None where that is not known.
    """

    pair: Pair
    level: float
    seeds: int
    examples: int
    seconds: float | None = None


class Shown(BaseModel):
    """A finalist's mean at the last look that it took part in."""

    mean: float
    seeds: int
    examples: int


class Timed(BaseModel):
    """What is known of such a comparison.

    Attributes:
        used: seconds so far, of all times that it went on. given: the time that it was given last.
        steps: of a whole training as it was screened for. trained: of the finalists' trainings,
            once screening has ended. examples: test examples there are; first: of the first look.
        target: levels of seeds and examples of the look that was aimed at, once there was one.
        most: steps that were asked for at most.
        rates: of the finalists; None of what trains nothing. out: why others are none.
        started: the finalists that there were at first. path: the looks that were taken, by levels
            of seeds and examples, and who took part. shown: by method, what it came to.
        runs: folders of the runs that were looked at.
        losses: validation losses of the screening, by method.
        ended: "decided", "time", "alone", or "" where it was stopped.
    """

    metric: str
    margin: float
    steps: int
    most: int
    first: int
    examples: int
    used: float = 0.0
    given: float = 0.0
    target: tuple[int, int] | None = None
    rates: dict[str, float | None] = {}
    finalists: list[str] = []
    out: dict[str, str] = {}
    losses: dict[str, float] = {}
    leader: str | None = None
    started: list[str] = []
    path: list[tuple[int, int, list[str]]] = []
    pairs: list[TimedPair] = []
    shown: dict[str, Shown] = {}
    runs: list[str] = []
    ended: str = ""
    trained: int | None = None

    def write(self, folder: Path) -> None:
        """Put it into a comparison's folder."""
        write_json(folder / WITHIN, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> Timed | None:
        """That of a comparison's folder; None of one without a given time.

        Raises:
            InputError: it is damaged.
        """
        path = folder / WITHIN
        if not path.exists():
            return None
        with refusing(f"{path} is damaged, delete it to begin a new verdict: "):
            return cls.model_validate(read_json(path))

    def against_leader(self, outcome: Outcome) -> list[TimedPair]:
        """The leader's pairs of an outcome; of "better" those that it wins."""
        found = {
            other_of(one.pair, self.leader): one
            for one in self.pairs
            if self.leader in (one.pair.first, one.pair.second)
            and one.pair.outcome == outcome
            and one.pair.winner in (None, self.leader)
        }
        return [found[name] for name in self.finalists if name in found]


def applied(verdict: Verdict, timed: Timed, entries: Sequence[Entry]) -> Verdict:
    """A verdict in which pairs and sentences are those of the looks."""
    words = (*sentences(timed, entries), *about(timed))
    return replace(
        verdict,
        margin=timed.margin,
        pairs=tuple(one.pair for one in timed.pairs),
        sentences=words,
        quick=words,
        caution=None,
    )


def sentences(timed: Timed, entries: Sequence[Entry]) -> list[str]:
    """The verdict in words: before all finalists are decided against it, the first one leads."""
    if timed.leader is None or not timed.pairs:
        return [by_loss(timed)]
    figure = scored(timed.metric)
    own = timed.shown[timed.leader]
    undecided = {other_of(one.pair, timed.leader): one for one in timed.against_leader("undecided")}
    better, tied = (
        [other_of(one.pair, timed.leader) for one in timed.against_leader(outcome)]
        for outcome in ("better", "tied")
    )
    # Some may not have been brought to a look with it, or were better at an earlier one.
    settled = (timed.leader, *better, *tied)
    open_ones = [name for name in timed.finalists if name not in settled]
    score = f"{figure.title} {figure.unit.said(own.mean)}"
    said = "leads" if open_ones else "is best"
    lines = [
        f"{timed.leader} {said}: {score} ({counted(own.seeds, 'seed')} that chose nothing, "
        f"{counted(own.examples, 'test example')})."
    ]
    parts = []
    if better:
        parts.append(f"better than {listed(better)}")
    if tied:
        parts.append(f"tied with {listed(tied)} (within {figure.unit.said(timed.margin)})")
    if open_ones:
        parts.append(f"not decided against {listed(open_ones)}")
    if parts:
        lines.append(f"{timed.leader} is {'; '.join(parts)}.")
    lines += [
        _open(undecided[name], timed)
        if name in undecided
        else f"{timed.leader} and {name} were not brought to a look that decides between them."
        for name in open_ones
    ]
    return lines + _recommended([one for one in entries if one.name in (timed.leader, *tied)])


def by_loss(timed: Timed) -> str:
    """Who leads while nothing has been held against the test split."""
    if timed.leader is None:
        return "Nothing has been trained far enough to lead."
    loss = timed.losses.get(timed.leader or "")
    told = "" if loss is None else f": validation loss {loss:.3f}"
    seen = "The table has fewer seeds than the three that a verdict needs." if timed.runs else ""
    seen = seen or "No method has been held against the test split yet."
    return f"{timed.leader} leads{told}. {seen}"


def _open(one: TimedPair, timed: Timed) -> str:
    said, name = scored(timed.metric).unit.said, timed.leader
    low, high = interval_of(one.pair)
    text = (
        f"{name} and {other_of(one.pair, name)} are {said(abs(one.pair.difference))} apart "
        f"({one.level:.1%} interval {said(low)} to {said(high)}, "
        f"{counted(one.seeds, 'seed')}, {counted(one.examples, 'test example')})"
    )
    if one.seconds is None:
        return f"{text}; what would decide it is more than can be foreseen."
    return f"{text}; about {duration(one.seconds)} more would decide it."


def _recommended(alike: Sequence[Entry]) -> list[str]:
    """Of what is tied with the best, the cheapest."""
    if len(alike) < 2:
        return []
    return [f"Of those tied take {cheapest(alike).name}: it costs least."]


def about(timed: Timed) -> list[str]:
    """What was left out and why, and how the time went."""
    lines = []
    by_reason: dict[str, list[str]] = {}
    for name, reason in timed.out.items():
        by_reason.setdefault(reason, []).append(name)
    lines += [f"Not compared: {listed(names)}, since {why}." for why, names in by_reason.items()]
    ended = {
        "decided": "every finalist is decided against it",
        "time": "no further look was within the time",
        "alone": "fewer than two methods came to a look",
    }.get(timed.ended, "it was stopped")
    more = "" if timed.ended == "decided" else " The same command with a longer --within goes on."
    lines.append(
        f"{duration(timed.used)} of {duration(timed.given)} are used: {ended}. Trainings of "
        f"{timed.trained or timed.steps:,} steps.{more}"
    )
    return lines


def check_unchanged(timed: Timed, margin: float | None, metric: str, most: int) -> None:
    """Refuse another margin, metric or length for a verdict that has begun.

    Raises:
        InputError: says which.
    """
    wanted: Mapping[str, object] = {"metric": metric, "margin": margin, "most": most}
    for name, value in wanted.items():
        if value is not None and value != getattr(timed, name):
            called = "--steps" if name == "most" else name
            raise InputError(
                f"{called} is {value} and was {getattr(timed, name)} when this verdict began: what "
                "has been seen since may not change it. Choose another --out"
            )
