"""`compare --within`: the best verdict that fits into a given time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftlab.comparison.engine import Engine, Opened
from peftlab.comparison.label import label_on
from peftlab.comparison.local import LocalEngine
from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.processes import Stopped
from peftlab.comparison.profile import Profile
from peftlab.comparison.run import Compared, Silent, Watcher, looked_at
from peftlab.comparison.within.allocation import Allocation, Problem
from peftlab.comparison.within.clock import Clock, OutOfTime
from peftlab.comparison.within.measured import Measured
from peftlab.comparison.within.sizes import USED, first_examples, whole_length
from peftlab.comparison.within.steps import Candidate, Read, Step, Train
from peftlab.errors import InputError
from peftlab.metrics import main_metric, metric_spec
from peftlab.records import folders
from peftlab.records.reading import StoredRun
from peftlab.verdict.components import MIN_EXAMPLES
from peftlab.verdict.looks import FEWEST, Grid, Look
from peftlab.verdict.measured import aggregate_of
from peftlab.verdict.planning import needed_seconds
from peftlab.verdict.timed import Shown, Timed, TimedPair, check_unchanged

RATES = (1.0, 1 / 3, 3.0)
"""Times the rate that is known for a method and a base of that width, the likeliest first."""
MARGIN = 0.01
"""Of a metric's range: a point of ROUGE or BLEU, which is what papers report as a difference."""


def compare_within(
    plan: Plan,
    out: Path,
    watcher: Watcher | None = None,
    described: dict[str, Any] | None = None,
    engine: Engine | None = None,
) -> Compared:
    """Compare within `plan.within` seconds, as `comparison.run.compare` does without a limit.

    Raises:
        InputError: as there; or a margin that is another than when this verdict began.
        DiskFull, Stopped: what is finished is kept, and the verdict so far is in the folder.
    """
    given = plan.within
    assert given is not None
    plan = replace(plan, predict=True)  # what is bought hangs on what it costs
    watcher = watcher or Silent()
    earlier = Timed.read(out)
    _check(plan, earlier)
    clock = Clock(given, earlier.used if earlier else 0.0)
    if earlier is not None and clock.left() <= 0:
        raise InputError(
            f"{clock.used:,.0f} s of --within {given:,.0f} s are used already: give more"
        )
    with folders.only_one(out), (engine or LocalEngine()).opened(plan, out) as opened:
        try:
            with clock.ending():
                profiled, runs = looked_at(plan, opened, out, described or {})
        except OutOfTime:
            raise InputError(
                f"to plan for {len(plan.methods)} methods alone takes longer than --within "
                f"{given:,.0f} s: give more time, or fewer methods"
            ) from None
        watcher.planned(runs, profiled, 0)
        session = _Session(plan, profiled, runs, clock, opened, out, watcher, earlier)
        session.go()
    return Compared(session.stored, profiled)


class _Session:
    """One go of a comparison within a given time; what an earlier one had found is taken up."""

    def __init__(
        self,
        plan: Plan,
        profiled: Profile,
        runs: list[Run],
        clock: Clock,
        opened: Opened,
        out: Path,
        watcher: Watcher,
        earlier: Timed | None,
    ) -> None:
        self.plan, self.clock, self.out, self.watcher = plan, clock, out, watcher
        self.left_out = dict(profiled.misfits)
        self.left_out |= {run.label: run.left_out for run in runs if run.left_out is not None}
        self.runs = {run.label: run for run in runs if run.label not in self.left_out}
        if len(self.runs) < 2:
            told = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
            raise InputError(f"fewer than two methods are left to be compared ({told})")
        metric = main_metric(plan.task.metrics)
        candidates = tuple(candidate(run) for run in self.runs.values())

        def ground(steps: int) -> Measured:
            known, heard = profiled.predictions, watcher.heard
            return Measured(self.runs, known, steps, metric, clock, opened, out, heard)

        # What had not been looked at yet is decided anew, with the time that there is now; but
        # trainings that there are count, so their length stays.
        begun = earlier is not None and bool(earlier.path)
        goes_on = earlier is not None and bool(earlier.runs)
        self.timed = earlier if earlier and goes_on else self._begun(candidates, ground, metric)
        check_unchanged(self.timed, plan.margin, metric, plan.config.total_steps(self._rows))
        self.timed.given, self.timed.ended = clock.given, ""
        self.ground = ground(self.timed.steps)
        self.allocation = Allocation(self._problem(candidates), trained=self.timed.trained)
        self.ground.take_up_trials(candidates)
        if begun and self.timed.target is not None:
            known = {*self.timed.started, *self.timed.out}
            self.left_out |= self.timed.out
            self.left_out |= dict.fromkeys(
                self.runs.keys() - known,
                "it was added after the verdict had begun; another --out compares it",
            )
            asked = self.timed.started, self.timed.rates, self.timed.target, self.timed.path
            self.allocation.resume(*asked, self.timed.trained or self.timed.steps)

    @property
    def stored(self) -> list[StoredRun]:
        """The runs that were judged, in their order."""
        return list(self.ground.stored.values())

    def _begun(
        self, candidates: tuple[Candidate, ...], ground: Callable[[int], Measured], metric: str
    ) -> Timed:
        """What is fixed before anything is measured."""
        most = self.plan.config.total_steps(self._rows)
        whole = len(next(iter(self.runs.values())).task.test)
        probe = ground(most)
        readings = [_reading(probe, one, whole) for one in candidates if one.rates]
        trainings = [
            probe.cost(Train(one.name, one.rates[0], most)) for one in candidates if one.rates
        ]
        first = first_examples(whole, max(readings, default=0), max(trainings, default=1))
        time = USED * probe.left()
        steps = whole_length(candidates, most, probe, time, FEWEST, first)
        return Timed(
            metric=metric,
            margin=_margin(metric) if self.plan.margin is None else self.plan.margin,
            steps=steps,
            most=most,
            first=first,
            examples=whole,
        )

    @property
    def _rows(self) -> int:
        return len(self.plan.task.pairs("train"))

    def _problem(self, candidates: tuple[Candidate, ...]) -> Problem:
        timed, spec = self.timed, metric_spec(self.timed.metric)
        return Problem(
            candidates=candidates,
            steps=timed.steps,
            grid=Grid(timed.first, timed.examples),
            margin=timed.margin,
            higher_is_better=spec.higher_is_better,
            aggregate=aggregate_of(self.ground.scorer),
            bounds=spec.bounds,
        )

    def go(self) -> None:
        """Step by step, until nothing more is worth while or in time.

        Raises:
            DiskFull, Stopped: the verdict so far is in the folder.
        """
        steps, answer = self.allocation.steps(self.ground), None
        self._note()
        try:
            while True:
                step: Step = steps.send(answer)
                title = _told(step, self.allocation.length)
                self.watcher.begins(title)
                answer = self.ground.do(step)
                self._note()
                self.watcher.stands(f"{title}{_came_to(answer)}", self.stored)
        except StopIteration:
            self.timed.ended = self.allocation.ended
        except OutOfTime:
            self.timed.ended = "time"
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            self._note()

    def _note(self) -> None:
        """Write how it stands."""
        timed, allocation = self.timed, self.allocation
        timed.used = self.clock.used
        if len(allocation.path) >= len(timed.path):  # else it is on the way there again
            self._enter(timed, allocation)
        timed.write(self.out)

    def _enter(self, timed: Timed, allocation: Allocation) -> None:
        out = {**self.left_out, **allocation.screened.out}
        timed.out = {n: why for n, why in out.items() if n not in allocation.finalists}
        timed.started, timed.finalists = list(allocation.started), list(allocation.finalists)
        timed.rates, timed.target = dict(allocation.rates), allocation.grid.target
        timed.path, timed.leader = list(allocation.path), allocation.leader
        timed.trained = allocation.trained
        timed.losses |= {
            name: loss
            for name in allocation.screened.losses
            if math.isfinite(loss := allocation.screened.loss(name))
        }
        timed.pairs = _pairs(allocation, self.ground)
        timed.shown |= _shown(allocation)
        timed.runs = sorted(str(folder.relative_to(self.out)) for folder in self.ground.stored)


def _check(plan: Plan, earlier: Timed | None) -> None:
    """Refuse what no verdict could come of.

    Raises:
        InputError: says what is missing.
    """
    if len(plan.methods) < 2:
        raise InputError("--within compares methods: two at least were expected, got one")
    if not plan.task.validation:
        raise InputError(
            "--within chooses rates and methods by validation, and the task has no validation rows"
        )
    if len(plan.task.test) < MIN_EXAMPLES:
        raise InputError(
            f"the task has {len(plan.task.test)} test examples; a verdict needs {MIN_EXAMPLES}"
        )
    if earlier is not None and earlier.path:
        known = {label_on(method, plan.base_dtypes[0]) for method in plan.methods}
        if len(known & set(earlier.started)) < 2:
            raise InputError(
                f"this verdict began with {', '.join(earlier.started)}, of which fewer than two "
                "are among --methods: name them, or choose another --out"
            )


def candidate(run: Run) -> Candidate:
    """A run's method with the rates that it may be trained with."""
    method = run.method
    known = run.config.rate(method.rate_on(run.base.scale)) if method.trains else None
    rates = () if known is None else tuple(known * one for one in RATES)
    if method.searches:
        rates = (run.config.learning_rate or 1.0,)
    seeded = method.seeded or run.task.decoding.sample
    return Candidate(run.label, rates, seeded)


def _margin(metric: str) -> float:
    least, greatest = metric_spec(metric).bounds
    span = greatest - least
    return MARGIN * span if math.isfinite(span) else MARGIN


def _reading(ground: Measured, one: Candidate, whole: int) -> float:
    """Seconds of reading all test examples."""
    reads = [Read(one.name, one.rates[0], ground.steps, 1, n) for n in (1, whole)]
    return ground.cost(reads[1]) - ground.cost(reads[0])


def _told(step: Step, steps: int) -> str:
    if isinstance(step, Train):
        return f"{step.method} at a rate of {step.rate:.2g}, {step.steps} of {steps} steps"
    return f"{step.method}, seed {step.seed}: {step.examples} test examples"


def _came_to(answer: object) -> str:
    """What a step's answer says, where it is no table of scores."""
    if answer is None:
        return ": failed"
    return f": validation loss {answer:.3f}" if isinstance(answer, float) else ""


def _pairs(allocation: Allocation, ground: Measured) -> list[TimedPair]:
    """Each pair of finalists as the look left it that decided it, or else the last one."""
    found = []
    for pair, look in allocation.looked.values():
        seconds = None
        if pair.needed is not None and pair.outcome == "undecided":
            prices = _prices(allocation, ground, (pair.first, pair.second), look)
            if (pair.needed.examples or 0) > allocation.grid.whole - look.examples:
                prices["examples"] = 0.0  # there are not so many
            seconds = needed_seconds(pair.needed, prices)
        found.append(
            TimedPair(
                pair=pair,
                level=1 - look.allowed,
                seeds=look.seeds,
                examples=look.examples,
                seconds=seconds,
            )
        )
    return found


def _shown(allocation: Allocation) -> dict[str, Shown]:
    """The means of the last look, of those that took part in it."""
    if allocation.seen is None:
        return {}
    seen = allocation.seen
    return {
        runs.name: Shown(mean=float(mean), seeds=runs.seeds, examples=runs.examples)
        for runs, mean in zip(seen.estimates.runs, seen.estimates.means, strict=True)
    }


def _prices(
    allocation: Allocation, ground: Measured, pair: tuple[str, str], look: Look
) -> dict[str, float]:
    """Seconds of one more seed, and of one more test example, of both methods."""
    prices = {"seeds": 0.0, "examples": 0.0}
    unread = 1 + max(seed for own in allocation.scores.values() for seed in own)
    for name in pair:
        if (rate := allocation.rates.get(name)) is not None:
            fresh = Read(name, rate, allocation.length, unread, look.examples)
            more = replace(fresh, examples=look.examples + 1)
            prices["seeds"] += ground.cost(fresh)
            prices["examples"] += look.seeds * (ground.cost(more) - ground.cost(fresh))
    return prices
