"""One run, in a process of its own: train, evaluate, generate, each phase measured on its own.

Its folder holds `config.json` (all that decides the result), `metrics.jsonl`, the checkpoint,
`adapter/`, `predictions.jsonl` and `record.json`. A run that was cut off continues: training from
its checkpoint; a training that had ended is not measured again.
"""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.comparison.hosts import host
from peftlab.comparison.ledger import Ledger
from peftlab.comparison.plan import Run
from peftlab.comparison.processes import Say, describe
from peftlab.errors import InputError
from peftlab.estimate.prediction import errors
from peftlab.evaluation import Evaluation, SplitLoss
from peftlab.files import make_folder, write_json, write_text, writing
from peftlab.measure import environment, held, in_company, phase, tune_allocator
from peftlab.printable import echo
from peftlab.records import folders
from peftlab.records.figures import FIGURES, tracked
from peftlab.records.record import GeneralLoss, Progress, Record
from peftlab.training import Diverged, Trained
from peftlab.training.checkpoint import Progress as Far
from peftlab.training.tracking import Listen, tracking
from peftlab.trunk import TrunkStore

if TYPE_CHECKING:
    import torch

    from peftlab.tasks import Example
    from peftlab.training.display import Display, Show

_SHOW_SECONDS = 0.2  # between two messages about the same phase


def work(say: Say, run: Run, out: Path, trunk: Path | None = None) -> Record:
    """Carry out a run and leave its record in its folder.

    Says ("phase", name, total, done) when a phase begins and ("step", done, loss, speed) within; in
    training also ("memory", bytes).

    Args:
        trunk: a folder of kept activations that all runs of this machine share, see `shared_store`;
            None: the run has its own.

    Raises:
        whatever stopped the run; unless that was a full disk or Ctrl-C, it is recorded as failed.
    """
    tune_allocator()
    folder = out / run.folder
    make_folder(folder)
    with lock(folder):
        record, ledger = run.record(), Ledger()
        write_json(folder / folders.CONFIG, run.resolved())
        try:
            with tracking(run.track, folder, out.name, str(run.folder), run.resolved()) as listen:
                return _Work(say, run, folder, record, ledger, trunk, listen).go()
        except BaseException as error:
            kind, message = describe(error)
            if kind in ("input", "defect"):
                write_text(folder / "error.txt", traceback.format_exc())
                step = error.step if isinstance(error, Diverged) else None
                record.failed(message, step).write(folder)
            raise


class _Work:
    def __init__(
        self,
        say: Say,
        run: Run,
        folder: Path,
        record: Record,
        ledger: Ledger,
        trunk: Path | None,
        listen: Listen,
    ) -> None:
        self.say, self.run, self.folder, self.record = say, run, folder, record
        self.ledger, self.listen = ledger, listen
        self.store = shared_store(run, trunk)
        if trunk is not None:  # an older version's, which nobody would remove
            shutil.rmtree(folder / folders.TRUNK, ignore_errors=True)

    def go(self) -> Record:
        run, record = self.run, self.record
        self.say("phase", "load", 0, 0)
        with in_company() as company:
            record.environment = environment()
            self.host = host(run)
        record.others.load = company.share
        self.ledger.went_to("load")
        self._train()
        self._save()
        self._losses()
        evaluation, losses = self._generate()
        self._latency()
        self._write_predictions(evaluation, losses)
        self.ledger.close(record.seconds)
        hold_against_prediction(record)
        record.status = "finished"
        record.write(self.folder)
        self.listen(record.progress.steps if record.progress else 0, tracked(record))
        return record

    def _train(self) -> None:
        record = self.record
        earlier = self._measured_before()
        before = earlier.peak_memory.train if earlier else None
        pipe = Pipe(self.say, self.host.device)
        with phase("train", self.host.device) as measured:
            trained = self.host.train(
                self.run, self.folder, self.store, display=pipe.display, listen=self.listen
            )
        record.parameters = self.host.parameters()
        # Of a training that had already ended, the peak is what was recorded then.
        now = measured.peak_bytes if pipe.steps else None
        peaks = [peak for peak in (now, before) if peak is not None]
        record.peak_memory.train = max(peaks, default=None)
        record.peak_memory.gauge = measured.method
        others = measured.others if pipe.steps or not earlier else earlier.others.train
        record.others.train = record.others.step = others
        record.seconds.train, record.seconds.step = trained.seconds, trained.step_seconds
        record.seconds.train_spared = trained.spared_seconds or None
        self.ledger.trained(trained, measured.seconds)
        record.loss.validation = trained.validation_loss
        record.loss.validation_error = trained.validation_error
        record.progress = progress_of(trained)
        if self.store is not None and self.store.refused:
            echo(
                f"Warning: {self.run.title}: {self.store.refused:,} chunks of what the frozen "
                "trunk computes had no room (--trunk-disk, --trunk-memory) and were computed again",
                err=True,
            )
        record.write(self.folder)

    def _measured_before(self) -> Record | None:
        """What an earlier process of this same run recorded once it had trained, if one did."""
        try:
            earlier = Record.read(self.folder / "record.json")
        except InputError:
            return None
        return earlier if earlier.config_hash == self.record.config_hash else None

    def _save(self) -> None:
        adapter = self.folder / folders.ADAPTER
        self.host.save(adapter)
        self.record.bytes = sum(file.stat().st_size for file in adapter.iterdir())
        self.ledger.went_to("save")

    def _losses(self) -> None:
        """Losses of samples of train and validation."""
        run, record, loss = self.run, self.record, self.host.loss
        train_rows = run.samples.train or run.evaluation.train_rows
        self.say("phase", "evaluate", 2, 0)
        with phase("evaluate", self.host.device) as measured:
            found = {"train": loss("train", train_rows)}
            self.say("step", 1, None, None)
            if record.loss.validation is None or not run.validates_all:
                found["validation"] = loss("validation", run.evaluation.validation_rows)
        for split, one in found.items():
            self._lost(split, one)
        record.others.evaluate, record.peak_memory.evaluate = measured.others, measured.peak_bytes
        self.ledger.went_to("evaluate", measured.seconds)
        self._forgetting()
        self.ledger.went_to("forgetting")

    def _lost(self, split: str, found: SplitLoss) -> None:
        """Enter the loss of a split.

        Raises:
            Diverged: it is not finite.
        """
        record = self.record
        if not math.isfinite(found.loss):
            steps = record.progress.steps if record.progress else 0
            raise Diverged(f"the {split} loss of the trained state is {found.loss}", steps)
        setattr(record.loss, split, found.loss)
        setattr(record.loss, f"{split}_error", found.error)

    def _forgetting(self) -> None:
        text = self.run.general
        if text is not None and text.before is not None:
            after = self.host.text_loss(text)
            self.record.general = GeneralLoss(before=text.before, after=after)

    def _generate(self) -> tuple[Evaluation, SplitLoss]:
        """Texts of the test split and its losses, in one reading."""
        run, record = self.run, self.record
        self.say("phase", "generate", len(run.task.test), 0)
        with phase("generate", self.host.device) as measured:
            tell = _throttled(lambda count: self.say("step", count, None, None))
            evaluation, losses = self.host.evaluate(tell)
        self._lost("test", losses)
        record.others.generate, record.peak_memory.generate = measured.others, measured.peak_bytes
        self.ledger.went_to("generate", measured.seconds)
        record.scores, record.subsets = dict(evaluation.scores.corpus), evaluation.subsets
        record.context_tokens = evaluation.context_tokens
        record.truncated = evaluation.truncated
        return evaluation, losses

    def _latency(self) -> None:
        self.say("phase", "latency", 0, 0)
        with in_company() as company:
            self.record.latency = self.host.latency()
        self.record.others.latency = company.share
        self.ledger.went_to("latency")

    def _write_predictions(self, evaluation: Evaluation, losses: SplitLoss) -> None:
        lines = prediction_lines(self.run.task.test, evaluation, losses)
        write_text(self.folder / folders.PREDICTIONS, "".join(lines))


def prediction_lines(
    examples: Sequence[Example], evaluation: Evaluation, losses: SplitLoss, first: int = 0
) -> Iterator[str]:
    """One line a test example: source, references, prediction, its scores, its losses.

    Args:
        first: index of the first of them in the test split.
    """
    at = 0
    for i, (example, reply) in enumerate(zip(examples, evaluation.replies, strict=True)):
        pairs = slice(at, at + len(example.targets))
        at = pairs.stop
        row = {
            "index": first + i,
            "source": example.told(),
            "references": list(example.targets),
            "prediction": reply.text,
            "ended": reply.finished,
            "scores": {k: v[i] for k, v in evaluation.scores.per_example.items()},
            "loss_sums": losses.sums[pairs],
            "loss_tokens": losses.counts[pairs],
        }
        if evaluation.options:
            row["options"] = evaluation.options[i]
        yield json.dumps(row, ensure_ascii=False) + "\n"


def shared_store(run: Run, trunk: Path | None) -> TrunkStore | None:
    """Activations that every run of a machine finds in files, mapped into the memory of each."""
    if trunk is None:
        return None
    limits = run.config.trunk_memory, run.config.trunk_disk
    return TrunkStore(*limits, trunk, shared=True, owner=f"{run.label} {run.config_hash}")


def hold_against_prediction(record: Record) -> None:
    """Write into the record by how much predictions were off."""
    measured = {figure.name: figure.of(record) for figure in FIGURES}
    record.predicted |= errors(record.predicted, measured)


def progress_of(trained: Trained[Any] | Far) -> Progress:
    """How far a training came, as records have it."""
    return Progress(
        steps=trained.step if isinstance(trained, Far) else trained.steps,
        best_step=trained.best_step,
        tokens=trained.tokens,
        forward_tokens=trained.forward_tokens,
        validated=trained.validated,
        tokens_per_second=trained.tokens / trained.seconds if trained.seconds else None,
    )


class Pipe:
    """Tells the parent how training goes on, and what memory the device or process holds."""

    def __init__(self, say: Say, device: torch.device) -> None:
        self.say, self.device, self.steps = say, device, 0

    @property
    def display(self) -> Display:
        return self._display

    def _display(self, title: str, total: int, first: int) -> AbstractContextManager[Show]:
        return self._showing(total, first)

    @contextmanager
    def _showing(self, total: int, first: int) -> Iterator[Show]:
        self.say("phase", "train", total, first)

        def tell(step: int, loss: float, speed: float) -> None:
            self.say("step", step, loss, speed)
            self.say("memory", held(self.device))

        sometimes = _throttled(tell)

        def show(step: int, loss: float, speed: float) -> None:
            self.steps += 1
            sometimes(step, loss, speed)

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
def lock(folder: Path) -> Iterator[None]:
    """Wait for a process that is still ending a run in this folder (its comparison was killed)."""
    with writing(folder):
        held = (folder / folders.LOCK).open("w")
    with held as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
