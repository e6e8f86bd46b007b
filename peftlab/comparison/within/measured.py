"""A real comparison as the ground of an allocation: its clock, its costs, its runs."""

from __future__ import annotations

import threading
import time
from _thread import interrupt_main
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from peftlab.comparison.engine import MORE, TRIAL, WORK, Call, Opened, Workflow
from peftlab.comparison.finished import finished
from peftlab.comparison.plan import Run
from peftlab.comparison.processes import RunFailed, Say, Stopped
from peftlab.comparison.samples import validations
from peftlab.comparison.within.allocation import RUNGS, Problem
from peftlab.comparison.within.calls import trial_folder
from peftlab.comparison.within.steps import Read, Step, Train
from peftlab.errors import PeftlabError
from peftlab.estimate import Prediction
from peftlab.guests import is_guest
from peftlab.metrics import build_metric
from peftlab.records import folders
from peftlab.records.reading import StoredRun, predictions
from peftlab.records.record import Record, Search, Tried
from peftlab.training.config import DECAYS_LATE, TrainConfig
from peftlab.training.stem import stable_steps
from peftlab.verdict.components import Array
from peftlab.verdict.measured import scores_of

_BEYOND, _MOST_BEYOND = 0.03, 60.0  # of the given time, and seconds, until a run is stopped
_FACTORS = (0.3, 10.0)  # what was measured may correct a prediction by so much
_FORKED = 1.0  # seconds that a training takes to begin and end beside its steps


class OutOfTime(PeftlabError):
    """The time is used up; what was under way goes on from its checkpoint with more."""


@dataclass
class Clock:
    """What of the given time is left; the system's clock may be set meanwhile.

    Attributes:
        given: seconds in all. before: that were used when the comparison was last left.
    """

    given: float
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def used(self) -> float:
        """Seconds, of earlier times too."""
        return self.before + time.monotonic() - self.began

    def left(self) -> float:
        """Seconds."""
        return self.given - self.used

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Whatever runs within is stopped a little after the time is used up.

        Raises:
            OutOfTime: that happened.
        """
        beyond = min(_BEYOND * self.given, _MOST_BEYOND)
        timer = threading.Timer(max(0.0, self.left() + beyond), interrupt_main)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (Stopped, KeyboardInterrupt) as stopped:
            if self.left() > 0:
                raise
            raise OutOfTime("the time is used up") from stopped
        finally:
            timer.cancel()


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
        self.predictions = _all_known(runs, predictions)
        self.clock, self.opened, self.out, self.hear = clock, opened, out, hear
        self.metric, self.scorer = metric, build_metric(metric)
        self.tried: dict[str, dict[tuple[float, int], Record]] = defaultdict(dict)
        self.stored: dict[Path, StoredRun] = {}
        self.filled: set[str] = set()  # kinds of kept activations that are there
        self._took: dict[str, list[tuple[float, float]]] = defaultdict(list)

    # --- costs ---------------------------------------------------------------------------------

    def left(self) -> float:
        """Seconds, less what it will take, once, to keep what runs share of the frozen trunk."""
        return self.clock.left() - sum(self._unfilled().values())

    def cost(self, step: Step) -> float:
        run = self._run(step)
        if isinstance(step, Train):
            return 0.0 if self._trial(run) is not None else self._costs(step)
        have = self._read(run)
        return 0.0 if have >= step.examples else self._costs(step, have)

    def _costs(self, step: Step, have: int = 0) -> float:
        return self._factor(step.method) * self._predicted(step, have)

    def _predicted(self, step: Step, have: int = 0) -> float:
        """Seconds, as far as the plan could tell."""
        known = self.predictions[step.method]
        if isinstance(step, Train):
            return _FORKED + self._training(known, step)
        reading = (known.generate_seconds or 0.0) / max(1, len(self.runs[step.method].task.test))
        seconds = reading * (step.examples - have)
        if have:
            return seconds + _FORKED
        whole = Train(step.method, step.rate or 0.0, step.steps)
        besides = (known.evaluate_seconds or 0.0) + (known.besides_seconds or 0.0)
        return seconds + besides + self._training(known, whole, alone=True)

    def _training(self, known: Prediction, step: Train, alone: bool = False) -> float:
        """Of its steps and validations; what a shorter one has taken is there already."""
        shared, method = 0, self.runs[step.method].method
        if not (alone or is_guest(method) or method.searches):
            tried = self.tried.get(step.method, {})
            shared = max(
                (stable_steps(s) for r, s in tried if r == step.rate and s < step.steps), default=0
            )
        left = step.steps - shared
        config = self.runs[step.method].config
        planned = max(1, validations(config, config.steps))
        a_validation = (known.validation_seconds or 0.0) / planned
        every = max(1, self._every)
        return left * (known.step_seconds or 0.0) + a_validation * -(-left // every)

    def _kind(self, method: str) -> str:
        """Methods that begin at the cue keep the same; of others the seeds of one method."""
        return "cue" if self.runs[method].method.begins_at_cue else method

    def _unfilled(self) -> dict[str, float]:
        """By kind of kept activations that are not there yet, the seconds to keep them."""
        most: dict[str, float] = defaultdict(float)
        for method in self.runs:
            if (kind := self._kind(method)) not in self.filled:
                most[kind] = max(most[kind], self.predictions[method].filling_seconds)
        return most

    def _factor(self, method: str) -> float:
        """By how much what was measured exceeds what was predicted, of this method or of all."""
        took = self._took[method] or [one for each in self._took.values() for one in each]
        predicted, measured = (sum(one[i] for one in took) for i in (0, 1))
        if not predicted:
            return 1.0
        return min(max(measured / predicted, _FACTORS[0]), _FACTORS[1])

    # --- steps ---------------------------------------------------------------------------------

    def do(self, step: Step) -> Any:
        """Carry a step out; see `steps` for its answer.

        Raises:
            OutOfTime, Stopped, DiskFull: what is finished is kept.
        """
        run = self._run(step)
        if isinstance(step, Train):
            record = self._trial(run) or self._timed(step, Call(TRIAL, run, trial_folder(run)))
            return self._tried(step, record)
        have = self._read(run)
        if have < step.examples:
            function = MORE if have else WORK
            record = self._timed(step, Call(function, run, run.folder), have)
            if record is None or record.status != "finished":
                return None
        else:
            record = Record.read(self.out / run.folder / "record.json")
        folder = self.out / run.folder
        self.stored[folder] = StoredRun(record, folder)
        return self._scores(folder)[: step.examples]

    def _tried(self, step: Train, record: Record | None) -> float | None:
        if record is None:
            return None
        self.tried[step.method][step.rate, step.steps] = record
        return record.loss.validation if record.status == "finished" else None

    def _timed(self, step: Step, call: Call, have: int = 0) -> Record | None:
        """The record that a call leaves; None where it failed."""
        first = self._unfilled().get(self._kind(step.method), 0.0)
        predicted, begun = self._predicted(step, have) + first, time.monotonic()
        folder = self.out / (call.folder or "")
        if call.function == WORK:
            folders.forget_failure(folder)
        with self.clock.ending():
            try:
                (record,) = self.opened.run([_one(call)], self.hear)
            except RunFailed as error:
                return self._failed(call, str(error))
        self._took[step.method].append((predicted, time.monotonic() - begun))
        self.filled.add(self._kind(step.method))
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

    def take_up_trials(self, problem: Problem) -> None:
        """Know what earlier processes have screened."""
        for one in problem.candidates:
            for step in (Train(one.name, r, s) for r in one.rates for s in problem.rungs):
                if (record := self._trial(self._run(step))) is not None:
                    self._tried(step, record)

    def _trial(self, run: Run) -> Record | None:
        record = folders.record(self.out / trial_folder(run), run.config_hash)
        if record is None or record.status not in ("finished", "failed"):
            return None
        lost = record.status == "failed" and record.diverged_at is None
        return None if lost else record  # what failed otherwise than by its numbers is tried again

    def _read(self, run: Run) -> int:
        """How many test examples a finished run has read."""
        if finished(run, self.out) is None:
            return 0
        return len(predictions(self.out / run.folder))

    def _scores(self, folder: Path) -> Array:
        return np.asarray(scores_of(folder, self.metric, self.scorer))

    # --- runs ----------------------------------------------------------------------------------

    @property
    def _every(self) -> int:
        """Steps between validations, of all lengths."""
        return max(1, self.steps // 8)

    def _run(self, step: Step) -> Run:
        """The run that a step asks for."""
        run = self.runs[step.method]
        if isinstance(step, Train):
            config = self._config(run.config, step.steps or 1, step.rate or None, run.seed)
            return replace(run, config=config, trial=0, predicted={})
        config = self._config(run.config, self.steps, step.rate, step.seed)
        # A guest is not taken up again to read more.
        test = run.task.test[: None if is_guest(run.method) else step.examples]
        return replace(
            run,
            seed=step.seed,
            config=config,
            task=replace(run.task, test=test),
            searched=self._search(step.method, step.rate),
            predicted=self._foretold(step),
        )

    def _foretold(self, step: Read) -> dict[str, float]:
        """What was predicted, for the length that it is trained to."""
        known = self.predictions[step.method]
        steps = known.step_seconds or 0.0
        train = steps * step.steps + known.filling_seconds if steps else None
        values = replace(known, train_seconds=train, pace=None, evaluate_seconds=None).values()
        return {n: v for n, v in values.items() if n not in ("generate_seconds", "run_seconds")}

    def _config(
        self, config: TrainConfig, steps: int, rate: float | None, seed: int
    ) -> TrainConfig:
        """All lengths rise over the same number of steps, and fall at their ends."""
        shortest = stable_steps(max(1, self.steps // RUNGS[0]))
        warmup = min(max(1, round(config.warmup * self.steps)), max(1, shortest))
        return replace(
            config,
            steps=steps,
            epochs=None,
            learning_rate=config.learning_rate if rate is None else rate,
            schedule=DECAYS_LATE,
            warmup=min(1.0, warmup / steps),
            evaluate_every=self._every,
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


def _all_known(
    runs: Mapping[str, Run], predictions: Mapping[str, Prediction]
) -> dict[str, Prediction]:
    """Predictions of all; of a method without one (a guest) the means of the others'."""
    known = [one for one in predictions.values() if one.step_seconds] or [Prediction(0, 0, 0)]

    def mean(read: Callable[[Prediction], float | None]) -> float:
        return fmean(read(one) or 0.0 for one in known)

    usual = Prediction(
        0, 0, 0,
        step_seconds=mean(lambda one: one.step_seconds),
        validation_seconds=mean(lambda one: one.validation_seconds),
        evaluate_seconds=mean(lambda one: one.evaluate_seconds),
        generate_seconds=mean(lambda one: one.generate_seconds),
        besides_seconds=mean(lambda one: one.besides_seconds),
    )  # fmt: skip
    return {label: predictions.get(label, usual) for label in runs}


def _one(call: Call) -> Workflow[Record]:
    record: Record = yield call
    return record
