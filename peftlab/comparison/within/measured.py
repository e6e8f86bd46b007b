"""A real comparison as the ground of an allocation: its clock, its costs, its runs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftlab.comparison.engine import MORE, TRIAL, WORK, Call, Opened, Workflow
from peftlab.comparison.finished import finished
from peftlab.comparison.plan import Run
from peftlab.comparison.processes import RunFailed, Say
from peftlab.comparison.within.calls import trial_folder
from peftlab.comparison.within.clock import Clock
from peftlab.comparison.within.costs import Costs
from peftlab.comparison.within.screening import rungs
from peftlab.comparison.within.steps import Candidate, Read, Step, Train
from peftlab.estimate import Prediction
from peftlab.guests import is_guest
from peftlab.metrics import build_metric
from peftlab.records import folders
from peftlab.records.reading import StoredRun, predictions
from peftlab.records.record import NAME, Record, Search, Tried
from peftlab.training.config import DECAYS_LATE, TrainConfig, stable_steps
from peftlab.verdict.components import Array
from peftlab.verdict.measured import scores_of


class Measured:
    """See `steps.Ground`; carries out steps on an engine.

    Args:
        runs: of each method, on the first seed. steps: of a whole training.
    """

    def __init__(
        self,
        runs: Mapping[str, Run],
        predictions: Mapping[str, Prediction],
        steps: int,
        metric: str,
        clock: Clock,
        opened: Opened,
        out: Path,
        hear: Say,
    ) -> None:
        self.runs, self.steps = runs, steps
        self.every = max(1, steps // 4)  # steps between validations, of all lengths
        self.costs = Costs(runs, predictions, self.every)
        self.clock, self.opened, self.out, self.hear = clock, opened, out, hear
        self.metric, self.scorer = metric, build_metric(metric)
        self.tried: dict[str, dict[tuple[float, int], Record]] = defaultdict(dict)
        self.stored: dict[Path, StoredRun] = {}
        self._have: dict[tuple[str, float | None, int], int] = {}  # test examples read, by run

    def left(self) -> float:
        """Seconds, less what it will take, once, to keep what runs share of the frozen trunk."""
        return self.clock.left() - self.costs.once

    def cost(self, step: Step) -> float:
        if isinstance(step, Train):
            known = (step.rate, step.steps) in self.tried[step.method]
            return 0.0 if known else self.costs.of(step, shared=self._shared(step))
        have = self._read(step)
        return 0.0 if have >= step.examples else self.costs.of(step, have=have)

    def do(self, step: Step) -> Any:
        """Carry a step out; see `steps` for its answer.

        Raises:
            OutOfTime, Stopped, DiskFull: what is finished is kept.
        """
        return self._train(step) if isinstance(step, Train) else self._scores(step)

    def record(self, step: Read) -> Record:
        """What is recorded of a run that was read."""
        return self.stored[self.out / self._run(step).folder].record

    def take_up_trials(self, candidates: Sequence[Candidate]) -> None:
        """Know what earlier processes have screened.

        What failed otherwise than by its numbers is tried again.
        """
        for one in candidates:
            for step in (Train(one.name, r, s) for r in one.rates for s in rungs(self.steps)):
                run = self._run(step)
                record = folders.record(self.out / trial_folder(run), run.config_hash)
                if record is not None and (
                    record.status == "finished" or record.diverged_at is not None
                ):
                    self.tried[step.method][step.rate, step.steps] = record

    def _train(self, step: Train) -> float | None:
        tried, at = self.tried[step.method], (step.rate, step.steps)
        if at not in tried:
            run = self._run(step)
            call = Call(TRIAL, run, trial_folder(run))
            tried[at] = self._timed(step, call, shared=self._shared(step))
        record = tried[at]
        return record.loss.validation if record.status == "finished" else None

    def _shared(self, step: Train) -> int:
        """Steps that a shorter training has taken for it."""
        method = self.runs[step.method].method
        if is_guest(method) or method.searches:
            return 0
        tried = self.tried[step.method]
        shorter = (stable_steps(s) for r, s in tried if r == step.rate and s < step.steps)
        return max(shorter, default=0)

    def _scores(self, step: Read) -> Array | None:
        run, have = self._run(step), self._read(step)
        folder = self.out / run.folder
        if have < step.examples:
            record = self._timed(step, Call(MORE if have else WORK, run, run.folder), have=have)
            if record.status != "finished":
                return None
        else:
            record = Record.read(folder / NAME)
        self.stored[folder] = StoredRun(record, folder)
        scores = scores_of(folder, self.metric, self.scorer)
        self._have[step.method, step.rate, step.seed] = len(scores)
        return scores[: step.examples]

    def _read(self, step: Read) -> int:
        """How many test examples a finished run has read; files are asked once."""
        key = (step.method, step.rate, step.seed)
        if key not in self._have:
            run = self._run(step)
            there = finished(run, self.out) is not None
            self._have[key] = len(predictions(self.out / run.folder)) if there else 0
        return self._have[key]

    def _timed(self, step: Step, call: Call, **known: int) -> Record:
        """The record that a call leaves, of a failure too.

        Args:
            known: what is there already, see `Costs.of`.
        """
        begun = time.monotonic()
        if call.function == WORK:
            folders.forget_failure(self.out / (call.folder or ""))
        with self.clock.ending():
            try:
                (record,) = self.opened.run([_one(call)], self.hear)
            except RunFailed as error:
                return self._failed(call, str(error))
        self.costs.took(step, time.monotonic() - begun, **known)
        return record

    def _failed(self, call: Call, message: str) -> Record:
        """What the run has recorded of its failure, or, where it could not, that alone."""
        run, folder = call.subject, self.out / (call.folder or "")
        assert isinstance(run, Run)
        if call.function == MORE:
            return run.record().failed(message)  # what it had read stays as it is
        record = folders.record(folder, run.config_hash)
        if record is None or record.status != "failed":
            record = run.record().failed(message)
            record.write(folder)
        if call.function == WORK:
            self.stored[folder] = StoredRun(record, folder)
        return record

    def _run(self, step: Step) -> Run:
        """The run that a step asks for."""
        run = self.runs[step.method]
        if isinstance(step, Train):
            config = self._config(run.config, step.steps, step.rate, run.seed)
            return replace(run, config=config, trial=0, predicted={})
        config = self._config(run.config, step.steps, step.rate, step.seed)
        # A guest is not taken up again to read more.
        test = run.task.test[: None if is_guest(run.method) else step.examples]
        return replace(
            run,
            seed=step.seed,
            config=config,
            times_tokens=step.seed < 2,  # one seed says all
            task=replace(run.task, test=test),
            searched=self._search(step.method, step.rate),
            predicted=self.costs.foretold(step.method, step.steps),
        )

    def _config(
        self, config: TrainConfig, steps: int, rate: float | None, seed: int
    ) -> TrainConfig:
        """All lengths rise over the same number of steps, and fall at their ends."""
        shortest = stable_steps(rungs(self.steps)[0])
        warmup = min(max(1, round(config.warmup * self.steps)), max(1, shortest))
        return replace(
            config,
            steps=steps,
            epochs=None,
            learning_rate=config.learning_rate if rate is None else rate,
            schedule=DECAYS_LATE,
            warmup=min(1.0, warmup / steps),
            evaluate_every=self.every,
            patience=0,
            seed=seed,
        )

    def _search(self, method: str, rate: float | None) -> Search | None:
        """What screening has found of a method's rate, as records have it."""
        tried = self.tried.get(method)
        if rate is None or not tried:
            return None
        return Search(
            rate=rate,
            trials=[
                Tried(
                    rate=own,
                    loss=record.loss.validation,
                    status=record.status,
                    steps=record.progress.steps if record.progress else 0,
                )
                for (own, _), record in tried.items()
            ],
            seconds=sum(
                s or 0.0
                for record in tried.values()
                for s in (record.seconds.train, record.seconds.evaluate)
            ),
            tokens=sum(
                (p.forward_tokens or 0) + (p.validated or 0)
                for record in tried.values()
                if (p := record.progress)
            ),
        )


def _one(call: Call) -> Workflow[Record]:
    record: Record = yield call
    return record
