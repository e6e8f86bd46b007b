"""The training loop: the same for every method, on any device, resumable bit for bit on CPU."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from peftlab.errors import InputError
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.base import Method, State
from peftlab.options import identity
from peftlab.processes import ALONE, Processes, join
from peftlab.tasks.fit import fitted, shortened
from peftlab.token_limits import max_row_tokens
from peftlab.training.budget import Budget
from peftlab.training.checkpoint import Descending, Progress
from peftlab.training.config import DECAYS_LATE, OF_SECONDS, TrainConfig, stable_steps
from peftlab.training.data import lengths
from peftlab.training.display import Display, silent
from peftlab.training.journal import Journal
from peftlab.training.result import Diverged, Interrupted, Trained
from peftlab.training.stem import Stem
from peftlab.training.steps import Taken
from peftlab.training.stopping import graceful
from peftlab.training.teacher import Teacher
from peftlab.training.tracking import Listen
from peftlab.training.trainee import MethodInTraining, StudentInTraining, Trainable, Trainee
from peftlab.trunk import TrunkStore

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task

Made = TypeVar("Made")
Validated = Callable[[int, float], bool]

_ADVICE = "the same command continues from the last checkpoint, with any number of processes"
_CHECKPOINT = "the step of the checkpoint in the run's folder"
# Settings that decide nothing: the identities of the first checkpoints hold them as noughts.
_AS_FIRST = {"checkpoint_seconds": 0.0, "trunk_memory": 0, "trunk_disk": 0}
COLD_STEPS = 3  # the first steps pay for allocation and are left out of the time per step


def train(
    model: FrozenLM,
    method: Method,
    task: Task,
    config: TrainConfig | None = None,
    *,
    folder: Path | None = None,
    display: Display = silent,
    start: State | None = None,
    store: TrunkStore | None = None,
    validated: Validated | None = None,
    listen: Listen | None = None,
    stem: Stem | None = None,
    teacher: Teacher | None = None,
) -> Trained[Adaptation]:
    """Train one adaptation; the state with the lowest validation loss is kept, or with the best
    score on validation, of a method that goes by that (`Method.judges`).

    Args:
        folder: where `metrics.jsonl` and the checkpoint go. A run that was cut off there continues.
        start: a state to start from, instead of the method's own initialisation.
        store: where the frozen trunk's activations are kept; one that several trainings share
            (seeds, learning rates) fills once. By default each run has its own, in its folder.
        validated: is told the step and the loss of every validation; training ends where it
            returns true.
        listen: is told all that goes into `metrics.jsonl`, see `tracking`.
        stem: where trainings of other lengths leave what they share with this one.
        teacher: whose distribution at the targets is learnt; losses are divergences from it.

    Where a launcher has started several processes, each calls this with the same arguments, and
    all get the same result. A step's rows are then divided among them; the first one writes.

    Raises:
        Diverged, Interrupted: see there.
        InputError: settings that do not fit the model or the task; processes that are not alike.
        UnsupportedModel: the model lacks a site.
        Lost: another process has ended.
    """
    config = config or TrainConfig()
    task = fitted(task, model.tokenizer, ("train", "validation"))
    processes = join(model.device)
    for site in method.sites:
        model.conformance.require(site, method.name)
    method.check(model.shape)
    with processes.watched(_ADVICE if folder else "start all again"):
        processes.agree(_decides(method, task, config, model.fingerprint))
        if start is None:
            start = method.init(model, task, torch.Generator().manual_seed(config.seed))
        task = _whole_rows(model, method, task, config, start)
        trunk = folder / "trunk" if folder is not None and store is None else None
        if store is None:
            store = TrunkStore(config.trunk_memory // processes.local, config.trunk_disk, trunk)
        parts = (model, method, task, config, start, store, processes)
        identity = identity_of(method, task, config, model.fingerprint)
        if teacher is None:
            trainee = MethodInTraining(*parts)
        else:
            trainee = StudentInTraining(teacher, *parts)
            identity = f"{identity}, taught by {teacher.identity}"
        run = Loop(trainee, config, folder, identity, validated, processes, listen, stem)
        try:
            if method.trains or method.searches:
                run.go(display)
            result = run.result()  # once one process has it, none needs what is kept
        except Diverged:
            _remove(trunk)
            raise
        _remove(trunk)
        return result


def _remove(trunk: Path | None) -> None:
    if trunk is not None:
        shutil.rmtree(trunk, ignore_errors=True)


def _whole_rows(
    model: FrozenLM, method: Method, task: Task, config: TrainConfig, start: State
) -> Task:
    """The task without rows that are too long for this method, where it asks for that."""
    if task.long == "cut":
        return task
    edits = method.edits(method.materialise(start, model), model)
    limit = max_row_tokens(model.shape.context, config.max_length, edits.prefix_length)
    template = method.template(task.template, start)
    return shortened(task, template, model.tokenizer, limit, ("train", "validation"))


def _decides(
    method: Trainable, task: Task, config: TrainConfig, fingerprint: str
) -> dict[str, Any]:
    """All that decides the result of a run, by name."""
    return {
        "method": method.name,
        "settings": method.on(task).identity(),
        "config": identity(config) | _AS_FIRST,
        "task": task.source.fingerprint,
        "template": task.template.identity(),
        "base": fingerprint,
        **({} if task.long == "cut" else {"long": task.long}),
    }


def identity_of(method: Trainable, task: Task, config: TrainConfig, fingerprint: str) -> str:
    """A hash of all that decides the result of a run; a checkpoint belongs to one."""
    decides = _decides(method, task, config, fingerprint)
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def stem_of(
    folder: Path, method: Trainable, task: Task, config: TrainConfig, fingerprint: str
) -> Stem:
    """The stem of a training, shared by all of one warm-up, in steps, that differ in length alone.

    Raises:
        InputError: another schedule than warmup_stable_decay, or a budget of no fixed steps.
    """
    if config.schedule != DECAYS_LATE or config.tokens is not None or config.seconds is not None:
        raise InputError(
            f"trainings of several lengths share their beginning under the schedule {DECAYS_LATE} "
            f"and a budget of steps; got {config.schedule}"
        )
    steps = config.total_steps(len(task.pairs("train")))
    shared = replace(config, steps=1, epochs=None, warmup=0.0)
    warmup = round(config.warmup * steps)
    identity = identity_of(method, task, shared, fingerprint)
    return Stem(folder, f"{identity}, {warmup} steps of warm-up", stable_steps(steps))


class Loop(Generic[Made]):
    """One training: what is trained, its folder, and how far it has come.

    Args:
        identity: see `identity_of`.
    """

    def __init__(
        self,
        trainee: Trainee[Made],
        config: TrainConfig,
        folder: Path | None,
        identity: str,
        validated: Validated | None = None,
        processes: Processes = ALONE,
        listen: Listen | None = None,
        stem: Stem | None = None,
    ) -> None:
        self.trainee, self.config, self.validated = trainee, config, validated
        self.stem = stem
        self.processes, self.progress = processes, Progress()
        self.best = State({}, {})  # until there is a validation
        self.earlier_seconds = self.spared_here = 0.0
        self.journal = Journal(folder, identity, processes.is_first)
        self.journal.listen = listen

    @cached_property
    def budget(self) -> Budget:
        """What it may use; of a search that judges by itself, as many tokens as steps would read,
        since one of its steps may read a hundred times as many."""
        rows = self.trainee.data.rows
        budget = Budget.of(self.config, len(rows))
        return budget.in_tokens(self.config, lengths(rows)) if self.trainee.judges else budget

    def go(self, display: Display) -> None:
        """All steps that are left.

        Raises:
            Interrupted: Ctrl-C or SIGTERM came; everything is saved.
            Diverged: knows how far it came.
        """
        try:
            with graceful(together=self.processes.count > 1) as stop:
                self._go(display if self.processes.is_first else silent, stop)
        except Diverged as error:
            error.progress = self.progress
            raise
        except InputError:
            if self.trainee.judges and self.progress.step:  # an author that no longer answers
                self.save()
            raise

    def _go(self, display: Display, stop: list[int]) -> None:
        if self.config.patience and not len(self.trainee.data.validation):
            raise InputError(
                f"patience is {self.config.patience}, but there are no validation rows that it "
                "could go by; leave patience at 0"
            )
        self._restore()
        if self.processes.count > 1:
            how = {"processes": self.processes.count, "sharded": self.trainee.is_sharded}
            self.journal.log(self.progress.step, how)
        if self.trainee.searches and self.progress.step == 0:
            self.validate()  # a search may find nothing better than its start
        budget, progress, last_save = self.budget, self.progress, time.monotonic()
        with display(self.trainee.name, int(budget.amount), int(budget.used(progress))) as show:
            while not (progress.finished or budget.is_spent(progress)):
                used = budget.used(progress)
                taken, speed = self.step()
                show(int(budget.used(progress)), taken.loss, speed)
                told = {"loss": taken.loss, "tokens_per_second": speed, **taken.notes}
                self.journal.log(progress.step, told)
                if taken.ended or budget.is_spent(progress) or self._validation_is_due(used):
                    self.validate()
                progress.finished |= taken.ended
                if self.stem is not None and progress.step == self.stem.leaves:
                    self.stem.save(*self._checkpoint())
                overdue = time.monotonic() - last_save > self.config.checkpoint_seconds
                stopped, due = self._somebody(bool(stop), overdue)
                if stopped or due:
                    self.save()
                    last_save = time.monotonic()
                if stopped:
                    raise Interrupted(f"stopped after {self._so_far()}; the same command continues")
        progress.finished = True
        self.save()

    def _somebody(self, *asks: bool) -> list[bool]:
        """What any of the processes asks for."""
        return [any(column) for column in zip(*self.processes.numbers(*asks), strict=True)]

    def _validation_is_due(self, before: float) -> bool:
        """Every so many steps; of tokens or seconds, as often for methods whose steps are larger.

        Args:
            before: what of the budget was used before the last step.
        """
        every, budget = self.config.evaluate_every, self.budget
        if not every:
            return False
        if budget.kind == "steps":
            return self.progress.step % every == 0
        times = max(1, (self.trainee.data.steps or OF_SECONDS * every) // every)
        share = budget.amount / times
        return budget.used(self.progress) // share > before // share

    def _so_far(self) -> str:
        budget, progress = self.budget, self.progress
        if budget.kind == "steps":
            return f"step {progress.step} of {budget.amount:,.0f}"
        used = budget.used(progress)
        return f"step {progress.step}, {used:,.0f} of {budget.amount:,.0f} {budget.kind}"

    def step(self) -> tuple[Taken, float]:
        """Take one step; returns also its tokens/s."""
        begun, progress, trainee = time.perf_counter(), self.progress, self.trainee
        spared = trainee.spared_seconds
        taken = trainee.steps.take(progress.step, trainee.data)
        everyone = self.processes.numbers(
            time.perf_counter() - begun, taken.tokens, taken.forward_tokens
        )
        seconds = max(each[0] for each in everyone)
        tokens, forward_tokens = (int(sum(each[i] for each in everyone)) for i in (1, 2))
        trainee.moved()
        # What an interrupted process was charged for, this one may meet again.
        self.spared_here += trainee.spared_seconds - spared
        progress.spared_seconds = max(progress.spared_seconds, self.spared_here)
        progress.add(taken.loss, tokens, forward_tokens, seconds)
        trainee.steps.follow(self.budget.point(progress))
        return taken, tokens / seconds

    def validate(self) -> None:
        """Take the validation loss and keep the state if it is the best so far.

        Raises:
            Diverged: it is not finite.
        """
        validation = self.trainee.data.validation
        if not len(validation):
            return
        begun, progress = time.perf_counter(), self.progress
        loss, error = self.trainee.validation_loss()
        progress.validation_seconds += time.perf_counter() - begun
        if not math.isfinite(loss):
            raise Diverged(
                f"{self.trainee.name}: the validation loss is {loss} at step {progress.step}; "
                "lower the rate",
                progress.step,
            )
        progress.validated += sum(len(row.ids) - 1 for row in validation)
        known = {} if error is None else {"validation_error": error}
        self.journal.log(progress.step, {"validation_loss": loss, **known})
        if self.trainee.judges:
            now = self.trainee.settled(self.trainee.steps.snapshot())
            new = progress.best_loss is None or now.text != self.best.text
            progress.judged(loss, error, new)
            self.best = now
        elif progress.improves(loss, error):
            self.best = self.trainee.steps.snapshot()
        if self.config.patience and progress.stale >= self.config.patience:
            progress.finished = True
        asked = self.validated is not None and self.validated(progress.step, loss)
        progress.finished |= self._somebody(asked)[0]

    def save(self) -> None:
        """Write the checkpoint."""
        if self.trainee.resumable:
            begun = time.perf_counter()
            self.journal.save(*self._checkpoint())
            self.progress.saving_seconds += time.perf_counter() - begun

    def _checkpoint(self) -> tuple[State, State, Descending, Progress]:
        """All that a checkpoint holds of this run."""
        steps = self.trainee.steps
        return steps.state, self.best, steps.descending, self.progress

    def _restore(self) -> None:
        restored = self.journal.restore()
        if restored is None and self.stem is not None:
            restored = self.stem.longest()
        self.processes.agree({_CHECKPOINT: None if restored is None else restored.progress.step})
        if restored is None:
            return
        self.progress, self.best = restored.progress, self.trainee.steps.placed(restored.best)
        self.earlier_seconds = self.progress.all_seconds
        self.trainee.steps.restore(restored)
        self.trainee.moved()

    def result(self) -> Trained[Made]:
        """The best state as it is used, and what it took."""
        progress, trainee = self.progress, self.trainee
        validated = progress.best_loss is not None
        warm = progress.step_seconds[COLD_STEPS:] or progress.step_seconds
        return Trained(
            trainee.made(self.best if validated else trainee.steps.snapshot()),
            steps=progress.step,
            best_step=progress.best_step if validated else progress.step,
            validation_loss=progress.best_loss,
            validation_error=progress.best_error,
            seconds=progress.seconds,
            step_seconds=statistics.median(warm) if warm else 0.0,
            tokens=progress.tokens,
            forward_tokens=progress.forward_tokens,
            validated=progress.validated,
            validation_seconds=progress.validation_seconds,
            truncated=len(set().union(*self.processes.told(trainee.data.rows.cut))),
            lost_replies=trainee.data.rows.lost,
            losses=progress.losses,
            trunk_bytes=trainee.kept_bytes,
            skipped=trainee.skipped,
            saving_seconds=progress.saving_seconds,
            spared_seconds=progress.spared_seconds,
            earlier_seconds=self.earlier_seconds,
        )
