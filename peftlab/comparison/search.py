"""A method's learning rate, searched for inside a stated budget, by validation loss alone.

Every method gets as many trials, each with the same share of a run's budget. The first ones try
the method's own rate and rates up to ten times below and above it; further ones are drawn by
Optuna's TPE (Bergstra et al. 2011). A trial is ended early once its validation loss is above the
median of those before it (Golovin et al. 2017, section 3.2.3).

Trials are runs: each has a folder and a record, and what has ended is not made again. All trials
of a method share one process, one loaded base and one store of the frozen trunk's activations. No
trial looks at the test split.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.comparison.hosts import Host, host
from peftlab.comparison.plan import Run
from peftlab.comparison.processes import Say
from peftlab.comparison.trials import trial_config
from peftlab.comparison.work import Pipe, lock, progress_of, shared_store
from peftlab.errors import InputError
from peftlab.files import make_folder, write_json
from peftlab.measure import environment, in_company, tune_allocator
from peftlab.records import folders
from peftlab.records.reading import metrics
from peftlab.records.record import Record, Search, Tried
from peftlab.training import Diverged, Trained
from peftlab.training.checkpoint import Progress
from peftlab.trunk import TrunkStore

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial


LADDER = (1.0, 1 / 3, 3.0, 1 / 10, 10.0)  # times the method's own rate, in this order
_WIDEST = 30.0  # TPE looks no further from the method's own rate than this factor
_UNJUDGED = 2  # validations before a trial may be ended: rates that rise are slow at first
_RATE = "learning_rate"


def search(say: Say, run: Run, out: Path, trunk: Path | None = None) -> Search:
    """Find the rate for a method; `run` is at the method's own rate.

    Says ("trial", number, of, rate) when a trial begins, and what runs say within.

    Args:
        trunk: a folder of kept activations that all runs of this machine share; None: those of the
            search alone.

    Raises:
        InputError: no trial came to a finite loss, or settings do not fit.
    """
    tune_allocator()
    folder = out / run.search_folder
    make_folder(folder)
    with lock(folder):
        searched = _Search(say, run, folder, shared_store(run.at(1.0), trunk)).go()
        write_json(folder / folders.SEARCH, searched.model_dump(mode="json"))
    return searched


class _Search:
    """The trials of one method, those of earlier processes included."""

    def __init__(self, say: Say, run: Run, folder: Path, store: TrunkStore | None) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.say, self.run, self.folder = say, run, folder
        self.own = run.config.rate(run.method.rate_on(run.base.scale))
        pairs = len(run.task.pairs("train"))
        self.config = trial_config(run.config, run.search.share, pairs)
        self.study: Study = optuna.create_study(
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=_UNJUDGED),
        )
        self.store = store or TrunkStore(
            run.config.trunk_memory, run.config.trunk_disk, folder / folders.TRUNK
        )
        self.host: Host | None = None

    def go(self) -> Search:
        records = [self._trial(number) for number in range(self.run.search.trials)]
        shutil.rmtree(self.folder / folders.TRUNK, ignore_errors=True)
        tried = [_tried(record) for record in records]
        ended = [one for one in tried if one.status == "finished" and one.loss is not None]
        if not ended:
            raise InputError(
                f"{self.run.label}: none of {len(tried)} rates between "
                f"{min(one.rate for one in tried):.2g} and {max(one.rate for one in tried):.2g} "
                f"came to a finite loss: {records[0].error}"
            )
        best = min(ended, key=lambda one: one.loss or 0.0)
        return Search(
            rate=best.rate,
            trials=tried,
            seconds=sum(_seconds(record) for record in records),
            others=_others(records),
            tokens=sum(
                (p.forward_tokens or 0) + (p.validated or 0)
                for record in records
                if (p := record.progress)
            ),
        )

    def _trial(self, number: int) -> Record:
        """A trial's record; one that had ended is read, its course told to the study."""
        trial = self._ask(number)
        rate = float(trial.params[_RATE])
        run = replace(
            self.run,
            config=replace(self.config, learning_rate=rate),
            trial=number,
            searched=None,
            predicted={},
        )
        folder = self.folder / f"trial-{number}"
        if folders.is_of_another(folder, run.config_hash):
            shutil.rmtree(folder)  # e.g. round another rate, which was the method's own before
        record = folders.record(folder, run.config_hash)
        if record is None or record.status == "running":
            self.say("trial", number + 1, self.run.search.trials, rate)
            record = self._carry_out(run, folder, trial)
        else:
            _report(trial, folder, set())
        self._tell(trial, record)
        return record

    def _ask(self, number: int) -> Trial:
        """What is tried depends on the numbers and results of earlier trials alone."""
        import optuna

        reach = optuna.distributions.FloatDistribution(
            self.own / _WIDEST, self.own * _WIDEST, log=True
        )
        if number < len(LADDER):
            self.study.enqueue_trial({_RATE: self.own * LADDER[number]})
        self.study.sampler = optuna.samplers.TPESampler(seed=number, n_startup_trials=1)
        return self.study.ask({_RATE: reach})

    def _tell(self, trial: Trial, record: Record) -> None:
        from optuna.trial import TrialState

        if record.status == "finished":
            self.study.tell(trial, record.loss.validation)
        else:
            pruned = record.status == "pruned"
            self.study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)

    def _carry_out(self, run: Run, folder: Path, trial: Trial) -> Record:
        make_folder(folder)
        record = run.record()
        record.environment = environment()
        write_json(folder / folders.CONFIG, run.resolved())
        self.host = self.host or host(run)
        told: set[int] = set()

        def validated(*_: object) -> bool:
            _report(trial, folder, told)
            if trial.should_prune():
                record.status = "pruned"
            return record.status == "pruned"

        try:
            pipe = Pipe(self.say, self.host.device)
            with in_company() as company:
                trained = self.host.train(
                    run, folder, self.store, display=pipe.display, validated=validated
                )
            record.others.train = company.share
        except Diverged as error:
            record = record.failed(str(error), error.step)
            took: Progress | Trained[Any] = error.progress or Progress()
        else:
            took = trained
            record.parameters = self.host.parameters()
            record.loss.validation = trained.validation_loss
            record.loss.validation_error = trained.validation_error
            validated()  # a trial that an earlier process had ended is not validated here
            record.status = "pruned" if record.status == "pruned" else "finished"
        record.progress = progress_of(took)
        record.seconds.train, record.seconds.evaluate = took.seconds, took.validation_seconds
        record.seconds.train_spared = took.spared_seconds or None
        record.write(folder)
        return record


def _report(trial: Trial, folder: Path, told: set[int]) -> None:
    """Tell Optuna the validation losses that the trial's journal holds, each once."""
    for number, loss in enumerate(_validations(folder)):
        if number not in told:
            told.add(number)
            trial.report(loss, number)


def _validations(folder: Path) -> Iterator[float]:
    for line in metrics(folder):
        if "validation_loss" in line:
            yield line["validation_loss"]


def _tried(record: Record) -> Tried:
    loss = record.loss.validation
    return Tried(
        rate=record.train["learning_rate"],
        loss=loss if loss is not None and math.isfinite(loss) else None,
        status=record.status,
        steps=record.progress.steps if record.progress else 0,
    )


def _others(records: list[Record]) -> float | None:
    """Their mean share of the cores over all trials that know it, by seconds."""
    known = [
        (share, _seconds(record))
        for record in records
        if (share := record.others.train) is not None
    ]
    total = sum(seconds for _, seconds in known)
    return sum(share * seconds for share, seconds in known) / total if total else None


def _seconds(record: Record) -> float:
    """As if no other run had read anything before."""
    seconds = record.seconds
    return sum(s or 0.0 for s in (seconds.train, seconds.evaluate, seconds.train_spared))
