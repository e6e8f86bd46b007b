"""The allocator on comparisons that were really made: `bench.recordings` wrote what it may ask for.

`python -m tests.comparison.within.replay [replays] [FILE …]` prints the tables of
docs/statistics.md. Each replay shuffles which recorded seed is which, and which of the two
screening seeds is used; the truth is the table of all seeds. Scores were recorded at each method's
best rate alone: whoever chooses another one gets those, so what is judged is the choice of methods,
seeds and looks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from peftlab.comparison.within.allocation import Allocation, Problem
from peftlab.comparison.within.sizes import first_examples
from peftlab.comparison.within.steps import Candidate, Read, Step, Train
from peftlab.metrics import build_metric, metric_spec
from peftlab.training.config import stable_steps
from peftlab.verdict.components import Array, Runs, estimate
from peftlab.verdict.looks import FEWEST, Grid
from peftlab.verdict.measured import aggregate_of
from peftlab.verdict.statistics import Outcome, compare_pairs
from tests.comparison.within.simulation import follow

RECORDED = Path(__file__).parent / "recorded"
_TRIED = 4  # rates of the full design, each half a training
MARGIN = 0.01


@dataclass(frozen=True)
class Table:
    """What was recorded of one comparison."""

    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Table:
        """A table that `bench.recordings` has written."""
        return cls(json.loads(path.read_text()))

    @property
    def methods(self) -> Mapping[str, Any]:
        """By name."""
        own: Mapping[str, Any] = self.values["methods"]
        return own

    @property
    def steps(self) -> int:
        """Of a whole training."""
        return int(self.values["steps"])

    @cached_property
    def scores(self) -> dict[str, Array]:
        """By method, [seeds, examples] or the metric's rows."""
        return {name: np.asarray(own["scores"], float) for name, own in self.methods.items()}

    @property
    def examples(self) -> int:
        """Of the test split."""
        return int(next(iter(self.scores.values())).shape[1])

    def runs(self, name: str, seeds: Sequence[int], examples: int | None = None) -> Runs:
        """Some seeds of a method, as the statistics take them."""
        spec = metric_spec(self.values["metric"])
        return Runs(
            name,
            self.scores[name][list(seeds)][:, :examples],
            aggregate=self.aggregate,
            deterministic=not self.methods[name]["seeded"],
            bounds=spec.bounds,
        )

    @cached_property
    def aggregate(self) -> Any:
        """Of the metric."""
        return aggregate_of(build_metric(self.values["metric"]))

    @cached_property
    def truth(self) -> dict[str, float]:
        """The means of all seeds."""
        everything = [self.runs(name, range(len(own))) for name, own in self.scores.items()]
        means = estimate(everything, resamples=200).means
        return dict(zip(self.scores, map(float, means), strict=True))

    @cached_property
    def margin(self) -> float:
        """A hundredth of the metric's range."""
        least, greatest = metric_spec(self.values["metric"]).bounds
        return MARGIN * (greatest - least) if np.isfinite(greatest - least) else MARGIN

    def run_cost(self, name: str, examples: int) -> float:
        """Seconds of a whole training that reads so many test examples."""
        costs = self.methods[name]["costs"]
        return float(costs["run"] + costs["example"] * examples)

    def training_cost(self, name: str, steps: int) -> float:
        """Seconds of a training that reads none."""
        costs = self.methods[name]["costs"]
        return float(costs["begun"] + costs["step"] * steps)

    @cached_property
    def full_cost(self) -> float:
        """Seconds of the full design: rates in trials of half the length, three seeds of each."""
        total = 0.0
        for name, own in self.methods.items():
            trials = _TRIED * self.training_cost(name, self.steps // 2) if own["rates"] else 0.0
            seeds = FEWEST if own["seeded"] else 1
            total += trials + seeds * self.run_cost(name, self.examples)
        return total

    def full(self, rng: np.random.Generator) -> Standings:
        """The verdict of the full design on seeds drawn from the table."""
        runs = []
        for name, own in self.methods.items():
            count = FEWEST if own["seeded"] else 1
            seeds = rng.choice(len(self.scores[name]), size=count, replace=False)
            runs.append(self.runs(name, [int(seed) for seed in seeds]))
        estimates = estimate(runs, resamples=400)
        pairs = compare_pairs(estimates, margin=self.margin, plan=False, higher_is_better=self.up)
        place = int(estimates.means.argmax() if self.up else estimates.means.argmin())
        decided = {
            _key(pair.first, pair.second): (pair.outcome, pair.winner)
            for pair in pairs
            if pair.outcome != "undecided"
        }
        return Standings(runs[place].name, decided)

    @property
    def up(self) -> bool:
        """Whether more is better."""
        return bool(metric_spec(self.values["metric"]).higher_is_better)

    def within(self, name: str) -> bool:
        """Whether a method is the best of the table, or within the margin of it."""
        best = max(self.truth.values()) if self.up else min(self.truth.values())
        return abs(self.truth[name] - best) <= self.margin


@dataclass(frozen=True)
class Standings:
    """Who leads, and the pairs that are decided: by names, the outcome and who won."""

    leader: str
    decided: dict[tuple[str, str], tuple[Outcome, str | None]]

    def contradicts(self, other: Standings) -> bool:
        """Whether a pair that both decide is decided otherwise."""
        return any(
            self.decided[pair] != outcome
            for pair, outcome in other.decided.items()
            if pair in self.decided
        )


def _key(first: str, second: str) -> tuple[str, str]:
    return (first, second) if first < second else (second, first)


@dataclass
class Replayed:
    """See `steps.Ground`: answers come from a table."""

    table: Table
    time: float
    rng: np.random.Generator
    used: float = 0.0
    trained: set[tuple[str, float, int]] = field(default_factory=set)
    read: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.screened_on = int(self.rng.integers(2))
        self.seeds = {name: self.rng.permutation(len(s)) for name, s in self.table.scores.items()}

    def left(self) -> float:
        """Seconds."""
        return self.time - self.used

    def cost(self, step: Step) -> float:
        """As predicted when it was recorded."""
        if isinstance(step, Train):
            own = (s for m, r, s in self.trained if (m, r) == (step.method, step.rate))
            shared = max((stable_steps(s) for s in own if s < step.steps), default=0)
            return self.table.training_cost(step.method, step.steps - shared)
        if not self._there(step):
            return float("inf")
        have = self.read.get((step.method, step.seed), 0)
        if have >= step.examples:
            return 0.0
        if have:
            return float(self.table.methods[step.method]["costs"]["example"]) * (
                step.examples - have
            )
        return self.table.run_cost(step.method, step.examples)

    def _there(self, step: Read) -> bool:
        return step.seed <= len(self.table.scores[step.method])

    def do(self, step: Step) -> Any:
        """Look the answer up."""
        self.used += self.cost(step)
        own = self.table.methods[step.method]
        if isinstance(step, Train):
            self.trained.add((step.method, step.rate, step.steps))
            return own["losses"][repr(step.rate)][str(step.steps)][self.screened_on]
        have = self.read.get((step.method, step.seed), 0)
        self.read[step.method, step.seed] = max(have, step.examples)
        seed = self.seeds[step.method][max(0, step.seed - 1)]
        return self.table.scores[step.method][seed][: step.examples]


RATES = 3  # that the allocator tries, of those recorded


def replayed(table: Table, time: float, seed: int) -> tuple[Allocation, Replayed, float]:
    """One replay within a time; and the part of it after which there was a leader."""
    ground = Replayed(table, time, np.random.default_rng(seed))
    candidates = tuple(
        Candidate(name, tuple(own["rates"][:RATES]), own["seeded"])
        for name, own in table.methods.items()
    )
    readings = [own["costs"]["example"] * table.examples for own in table.methods.values()]
    trainings = [
        table.training_cost(name, table.steps)
        for name, own in table.methods.items()
        if own["rates"]
    ]
    first = first_examples(table.examples, max(readings), max(trainings))
    problem = Problem(
        candidates=candidates,
        steps=table.steps,
        grid=Grid(first, table.examples),
        margin=table.margin,
        higher_is_better=table.up,
        aggregate=table.aggregate,
        bounds=metric_spec(table.values["metric"]).bounds,
    )
    allocation, leads = Allocation(problem), float("nan")

    def do(step: Step) -> Any:
        nonlocal leads
        answer = ground.do(step)
        if leads != leads and len(allocation.screened.losses) > 1:
            leads = ground.used / time
        return answer

    follow(allocation.steps(ground), do)
    return allocation, ground, leads


def standings(allocation: Allocation) -> Standings:
    """What an allocation has come to."""
    decided = {k: (pair.outcome, pair.winner) for k, (pair, _) in allocation.decided.items()}
    return Standings(allocation.leader or "", decided)


@dataclass(frozen=True)
class Judged:
    """Shares over replays, see `main`."""

    within: float
    uncontradicted: float
    decided: float
    used: float
    leads: float


def judged(table: Table, time: float, replays: int) -> Judged:
    """Replay within a time, each beside a full design drawn for itself."""
    found = []
    for seed in range(replays):
        full = table.full(np.random.default_rng(10_000 + seed))
        allocation, ground, leads = replayed(table, time, seed)
        ours = standings(allocation)
        agrees = not ours.contradicts(full)
        found.append((table.within(ours.leader), agrees, len(ours.decided), ground.used, leads))
    return Judged(*(fmean(float(one[i]) for one in found) for i in range(5)))


def judged_full(table: Table, replays: int) -> Judged:
    """Two full designs, one against the other."""
    found = []
    for seed in range(replays):
        one, other = (table.full(np.random.default_rng(at + seed)) for at in (20_000, 10_000))
        found.append((table.within(one.leader), not one.contradicts(other), len(one.decided)))
    own = (fmean(float(one[i]) for one in found) for i in range(3))
    return Judged(*own, used=table.full_cost, leads=1.0)


def main(arguments: Sequence[str]) -> None:
    """Print a table for each recording."""
    replays = int(arguments[0]) if arguments else 200
    paths = [Path(name) for name in arguments[1:]] or sorted(RECORDED.glob("*.json"))
    for path in paths:
        table = Table.read(path)
        print(f"\n{path.stem}: {len(table.methods)} methods, {table.steps} steps, "
              f"{table.examples} test examples, {table.values['metric']}; "
              f"the full design takes {table.full_cost:,.0f} s")  # fmt: skip
        for name, mean in sorted(table.truth.items(), key=lambda one: -one[1]):
            print(f"  {name}: {mean:.3f}")
        print(f"\n{noise(table)}")
        print("\n| seconds | best, or within the margin | nothing contradicted | pairs decided "
              "| seconds used | a first leader after |\n|---|---|---|---|---|---|")  # fmt: skip
        whole = table.full_cost
        _print("full design", judged_full(table, replays))
        for part in (1.0, 1 / 2, 1 / 3, 1 / 4):
            _print(f"{part:.2f} of that", judged(table, part * whole, replays))


@dataclass(frozen=True)
class Noise:
    """Over the pairs of a table's seeded methods, on average.

    paired: the variance between seeds of a difference, seed by seed, as a share of what it would be
    if seeds had nothing in common. scores, losses: distances of two methods in standard deviations
    between seeds, by the metric and by the test loss.
    """

    paired: float
    scores: float
    losses: float | None


def noise(table: Table) -> Noise:
    """What pairing by seeds, and losses in the place of scores, would give."""
    seeded = [name for name, own in table.methods.items() if own["seeded"]]
    means = {n: np.array([s.mean() for s in table.scores[n]]) for n in seeded}
    losses = {n: np.array(table.methods[n].get("test_losses") or [np.nan]) for n in seeded}
    pairs = list(combinations(seeded, 2))

    def apart(values: Mapping[str, Array], a: str, b: str) -> float:
        spread = float(np.sqrt((values[a].var(ddof=1) + values[b].var(ddof=1)) / 2))
        return abs(float(values[a].mean() - values[b].mean())) / spread

    paired = fmean(
        float((means[a] - means[b]).var(ddof=1) / (means[a].var(ddof=1) + means[b].var(ddof=1)))
        for a, b in pairs
    )
    known = all(len(own) > 1 for own in losses.values())
    by_loss = float(np.median([apart(losses, a, b) for a, b in pairs])) if known else None
    return Noise(paired, float(np.median([apart(means, a, b) for a, b in pairs])), by_loss)


def _print(name: str, got: Judged) -> None:
    print(
        f"| {name} | {got.within:.0%} | {got.uncontradicted:.0%} | {got.decided:.1f} "
        f"| {got.used:,.0f} | {got.leads:.0%} of the time |",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
