"""One run, in a process of its own: train, evaluate, generate, each phase measured on its own.

Its folder holds `config.json` (all that decides the result), `metrics.jsonl`, the checkpoint,
`adapter/`, `predictions.jsonl` and `record.json`. A run that was cut off continues: training from
its checkpoint; a training that had ended is not measured again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.compare import base, folders
from peftlab.compare.latency import latency
from peftlab.compare.plan import Run
from peftlab.compare.processes import Say, describe
from peftlab.compare.record import (
    Parameters,
    Progress,
    Record,
    write_json,
)
from peftlab.errors import InputError
from peftlab.evaluate import Evaluation, SplitLoss, evaluate, split_loss
from peftlab.measure import Phase, environment, phase, tune_allocator
from peftlab.train import Trained, train

if TYPE_CHECKING:
    from peftlab.train.display import Display, Show

_SHOW_SECONDS = 0.2  # between two messages about the same phase


def work(say: Say, run: Run, out: Path) -> Record:
    """Carry out a run and leave its record in its folder.

    Says ("phase", name, total, done) when a phase begins and ("step", done, loss, speed) within.

    Raises:
        whatever stopped the run; unless that was a full disk or Ctrl-C, it is recorded as failed.
    """
    tune_allocator()
    folder = out / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        record = run.record()
        write_json(folder / folders.CONFIG, run.resolved())
        try:
            return _Work(say, run, folder, record).go()
        except BaseException as error:
            kind, message = describe(error)
            if kind in ("input", "defect"):
                (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
                record.failed(message).write(folder)
            raise


class _Work:
    def __init__(self, say: Say, run: Run, folder: Path, record: Record) -> None:
        self.say, self.run, self.folder, self.record = say, run, folder, record

    def go(self) -> Record:
        run, record = self.run, self.record
        record.environment = environment()
        self.say("phase", "load", 0, 0)
        self.model = base.load(run.base.name, run.base.device)
        if self.model.fingerprint != run.base.fingerprint:
            raise InputError(
                f"the weights of {run.base.name} have changed since this comparison began"
            )
        count = run.method.count(self.model.shape)
        record.parameters = Parameters(
            trainable=count.trainable, stored=count.stored, base=self.model.shape.size
        )
        trained = self._train()
        self._save(trained)
        losses = self._losses()
        evaluation = self._generate()
        if run.evaluation.latency_tokens:
            record.latency = latency(
                self.model,
                self.adaptation,
                run.task,
                run.evaluation.latency_tokens,
                run.config.max_length,
            )
        self._write_predictions(evaluation, losses)
        shutil.rmtree(self.folder / "trunk", ignore_errors=True)  # kept to train again from
        record.status = "finished"
        record.write(self.folder)
        return record

    def _train(self) -> Trained:
        record, run = self.record, self.run
        earlier = self._measured_before()
        pipe = _Pipe(self.say)
        with phase("train", self.model.device) as measured:
            trained = train(
                self.model,
                run.method,
                run.task,
                run.config,
                folder=self.folder,
                display=pipe.display,
            )
        # Of a training that had already ended, the peak is what was recorded then.
        now = measured.peak_bytes if pipe.steps else None
        peaks = [peak for peak in (now, earlier) if peak is not None]
        record.peak_memory.train = max(peaks, default=None)
        record.peak_memory.gauge = measured.method
        record.seconds.train, record.seconds.step = trained.seconds, trained.step_seconds
        record.loss.validation = trained.validation_loss
        record.progress = Progress(
            steps=trained.steps,
            best_step=trained.best_step,
            tokens=trained.tokens,
            tokens_per_second=trained.tokens / trained.seconds if trained.seconds else None,
        )
        record.write(self.folder)
        return trained

    def _measured_before(self) -> int | None:
        """The peak of training that an earlier process of this same run measured, if one did."""
        try:
            earlier = Record.read(self.folder / "record.json")
        except InputError:
            return None
        return earlier.peak_memory.train if earlier.config_hash == self.record.config_hash else None

    def _save(self, trained: Trained) -> None:
        self.adaptation = trained.adaptation
        adapter = self.folder / folders.ADAPTER
        self.adaptation.save(adapter)
        self.record.bytes = sum(file.stat().st_size for file in adapter.iterdir())

    def _losses(self) -> SplitLoss:
        """Losses of a sample of train, of validation and of test; returns that of test."""
        run, record = self.run, self.record
        room = run.config.max_length
        self.say("phase", "evaluate", 3, 0)

        def loss(split: str, limit: int | None = None) -> SplitLoss:
            return split_loss(
                self.model, self.adaptation, run.task, split, limit=limit, max_length=room
            )

        with phase("evaluate", self.model.device) as measured:
            record.loss.train = loss("train", run.evaluation.train_rows).loss
            self.say("step", 1, None, None)
            record.loss.validation = loss("validation").loss
            self.say("step", 2, None, None)
            test = loss("test")
        record.loss.test = test.loss
        record.seconds.evaluate, record.peak_memory.evaluate = _costs(measured)
        return test

    def _generate(self) -> Evaluation:
        run, record = self.run, self.record
        self.say("phase", "generate", len(run.task.test), 0)
        with phase("generate", self.model.device) as measured:
            evaluation = evaluate(
                self.model,
                self.adaptation,
                run.task,
                batch_size=run.evaluation.batch_size,
                max_length=run.config.max_length,
                seed=run.seed,
                done=_throttled(lambda count: self.say("step", count, None, None)),
            )
        record.seconds.generate, record.peak_memory.generate = _costs(measured)
        record.scores = dict(evaluation.scores.corpus)
        record.context_tokens = evaluation.context_tokens
        record.truncated = evaluation.truncated
        return evaluation

    def _write_predictions(self, evaluation: Evaluation, losses: SplitLoss) -> None:
        """One line a test example: source, references, prediction, its scores, its losses."""
        path = self.folder / folders.PREDICTIONS
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        at = 0
        with temporary.open("w", encoding="utf-8") as file:
            for i, (example, reply) in enumerate(
                zip(self.run.task.test, evaluation.replies, strict=True)
            ):
                pairs = slice(at, at + len(example.targets))
                at = pairs.stop
                row = {
                    "index": i,
                    "source": example.source,
                    "references": list(example.targets),
                    "prediction": reply.text,
                    "ended": reply.finished,
                    "scores": {k: v[i] for k, v in evaluation.scores.per_example.items()},
                    "loss_sums": losses.sums[pairs],
                    "loss_tokens": losses.counts[pairs],
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        temporary.replace(path)


def _costs(measured: Phase) -> tuple[float, int]:
    return measured.seconds, measured.peak_bytes


class _Pipe:
    """Tells the parent how training goes on."""

    def __init__(self, say: Say) -> None:
        self.say, self.steps = say, 0

    @property
    def display(self) -> Display:
        return self._display

    def _display(self, title: str, total: int, first: int) -> AbstractContextManager[Show]:
        return self._showing(total, first)

    @contextmanager
    def _showing(self, total: int, first: int) -> Iterator[Show]:
        self.say("phase", "train", total, first)
        tell = _throttled(lambda step, loss, speed: self.say("step", step, loss, speed))

        def show(step: int, loss: float, speed: float) -> None:
            self.steps += 1
            tell(step, loss, speed)

        yield show


def _throttled(tell: Callable[..., None]) -> Callable[..., None]:
    last = 0.0

    def sometimes(*values: object) -> None:
        nonlocal last
        if time.monotonic() - last > _SHOW_SECONDS:
            last = time.monotonic()
            tell(*values)

    return sometimes


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Wait for a process that is still ending a run in this folder (its comparison was killed)."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
