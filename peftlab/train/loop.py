"""The training loop: the same for every method, on any device, resumable bit for bit on CPU."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.edits import Edits
from peftlab.errors import PeftlabError
from peftlab.frozen.batch import pack
from peftlab.loss import mean_loss, token_losses, training_row
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.base import Method, State
from peftlab.train import checkpoint
from peftlab.train.checkpoint import Progress
from peftlab.train.config import TrainConfig
from peftlab.train.display import Display, silent
from peftlab.train.rows import Order, Rows

if TYPE_CHECKING:
    from accelerate import Accelerator

    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Task

_COLD_STEPS = 3  # the first steps pay for allocation and are left out of the time per step


class Diverged(PeftlabError):
    """The loss became NaN or infinite; the message names the step."""


class Interrupted(PeftlabError):
    """Ctrl-C or SIGTERM came; everything is in the checkpoint and the same call continues."""


@dataclass(frozen=True)
class Trained:
    """A finished training: the best adaptation, and what it took.

    Attributes:
        step_seconds: median warm time of an optimiser step.
        seconds: all steps, without evaluation. tokens: packed tokens through the base.
        truncated: training rows that lost source tokens.
    """

    adaptation: Adaptation
    steps: int
    best_step: int
    validation_loss: float | None
    seconds: float
    step_seconds: float
    tokens: int
    truncated: int


def train(
    model: FrozenLM,
    method: Method,
    task: Task,
    config: TrainConfig | None = None,
    *,
    folder: Path | None = None,
    display: Display = silent,
    start: State | None = None,
) -> Trained:
    """Train one adaptation; the state with the lowest validation loss is kept.

    Args:
        folder: where `metrics.jsonl` and the checkpoint go. A run that was cut off there continues.
        start: a state to start from, instead of the method's own initialisation.

    Raises:
        Diverged, Interrupted: see there.
        InputError: settings that do not fit the model or the task.
        UnsupportedModel: the model lacks a site.
    """
    config = config or TrainConfig()
    for site in method.sites:
        model.conformance.require(site, method.name)
    method.check(model.shape)
    rng = torch.Generator().manual_seed(config.seed)
    state = start or method.init(model, task, rng)
    run = _Run(model, method, task, config, state, folder, display)
    if method.trains:
        with _graceful() as stop:
            run.go(stop)
    return run.result()


@dataclass
class _Run:
    model: FrozenLM
    method: Method
    task: Task
    config: TrainConfig
    state: State
    folder: Path | None
    display: Display
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        template = self.method.template(self.task.template, self.state)
        tokenizer = self.model.tokenizer
        device = self.model.device
        self.parameters = {
            name: torch.nn.Parameter(tensor.to(device))
            for name, tensor in self.state.tensors.items()
        }
        self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        room = row_room(self.model, self._baked(), self.config.max_length)
        self.rows = Rows(self.task.pairs("train"), template, tokenizer, room)
        validation = self.task.pairs("validation")[: self.config.validation_limit]
        self.validation = Rows(validation, template, tokenizer, room)
        self.total = self.config.total_steps(len(self.rows))
        self.order = Order(len(self.rows), self.config.rows_a_step, self.config.seed)

    @property
    def identity(self) -> str:
        """A hash of all that decides the result of this run."""
        decides = {
            "method": self.method.name,
            "settings": self.method.settings(),
            "config": asdict(replace(self.config, checkpoint_seconds=0.0)),
            "task": self.task.source.fingerprint,
            "template": self.task.template.to_dict(),
            "base": self.model.fingerprint,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()

    def _baked(self, dropout_seed: int | None = None) -> Edits:
        state = State(dict(self.parameters), self.state.text)
        return self.method.edits(self.method.bake(state, self.model), self.model, dropout_seed)

    def go(self, stop: list[int]) -> None:
        """All steps that are left, then the best state."""
        self._prepare()
        self._restore()
        last_save = time.monotonic()
        with self.display(self.method.name, self.total, self.progress.step) as show:
            while self.progress.step < self.total and not self.progress.finished:
                loss, tokens, seconds = self._step()
                show(self.progress.step, loss, tokens / seconds)
                self._log({"loss": loss, "tokens_per_second": tokens / seconds, "lr": self._rate})
                self._validate_if_due()
                if stop or time.monotonic() - last_save > self.config.checkpoint_seconds:
                    self._save()
                    last_save = time.monotonic()
                if stop:
                    raise Interrupted(
                        f"stopped after step {self.progress.step} of {self.total}; the same "
                        "command continues"
                    )
        self.progress.finished = True
        self._save()

    def _prepare(self) -> None:
        from transformers import get_scheduler

        self.accelerator = _accelerator(self.config.precision, self.model)
        rate = self.config.learning_rate or self.method.learning_rate
        groups = [
            {**group, "params": [self.parameters[name] for name in group["params"]]}
            for group in self.method.groups(self.state, rate)
        ]
        optimizer = _optimizer(self.config, groups)
        warmup = round(self.config.warmup * self.total)
        self.scheduler = get_scheduler(self.config.schedule, optimizer, warmup, self.total)
        self.optimizer = self.accelerator.prepare(optimizer)

    @property
    def _rate(self) -> float:
        return float(self.scheduler.get_last_lr()[0])

    def _step(self) -> tuple[float, int, float]:
        """One optimiser step; returns its loss per target token, packed tokens and seconds."""
        begun = time.perf_counter()
        accelerator, step = self.accelerator, self.progress.step
        mine = self.order.step(step)[accelerator.process_index :: accelerator.num_processes]
        rows = [self.rows[i] for i in mine]
        targets = torch.tensor(
            float(sum(len(r.ids) - r.target_start for r in rows)), device=self.model.device
        )
        # All targets of the global batch divide the sum: micro-batches weigh by their tokens.
        targets = accelerator.reduce(targets, "sum")
        total, tokens = torch.zeros((), device=self.model.device), 0
        for micro in range(0, len(rows), self.config.batch_size):
            chunk = rows[micro : micro + self.config.batch_size]
            loss, packed = self._loss(chunk, step * 65_537 + micro)
            accelerator.backward(loss / targets)
            total, tokens = total + loss.detach(), tokens + packed
        self._share_gradients()
        if self.config.clip:
            accelerator.clip_grad_norm_(list(self.parameters.values()), self.config.clip)
        loss_value = float(accelerator.reduce(total, "sum") / targets)
        if not math.isfinite(loss_value):
            raise Diverged(
                f"{self.method.name}: the loss is {loss_value} at step {step + 1}; lower the rate"
            )
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        seconds = time.perf_counter() - begun
        self.progress.step += 1
        self.progress.seconds += seconds
        self.progress.tokens += tokens
        self.progress.step_seconds.append(seconds)
        return loss_value, tokens, seconds

    def _loss(self, rows: list[Encoded], seed: int) -> tuple[torch.Tensor, int]:
        with self.accelerator.autocast():
            edits = self._baked(self.config.seed * 1_000_003 + seed)
            packed = pack(
                [training_row(row) for row in rows],
                [edits],
                device=self.model.device,
                share=self.config.share,
                checkpoint=self.config.recompute,
            )
            losses = token_losses(self.model, packed, rows, self.config.label_smoothing)
        return losses.sum(), len(packed.ids)

    def _share_gradients(self) -> None:
        """Sum the adaptation's gradients over processes; nothing of the base travels."""
        if self.accelerator.num_processes > 1:
            for parameter in self.parameters.values():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(gradient, "sum")

    def _validate_if_due(self) -> None:
        step, every = self.progress.step, self.config.evaluate_every
        if not len(self.validation) or not (step == self.total or (every and step % every == 0)):
            return
        with torch.no_grad(), self.accelerator.autocast():
            loss = mean_loss(self.model, self._baked().detach(), self.validation)
        self._log({"validation_loss": loss})
        if self.progress.best_loss is None or loss < self.progress.best_loss:
            self.progress.best_loss, self.progress.best_step, self.progress.stale = loss, step, 0
            self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        else:
            self.progress.stale += 1
        if self.config.patience and self.progress.stale >= self.config.patience:
            self.progress.finished = True

    def _log(self, values: dict[str, Any]) -> None:
        if self.folder is not None and self.accelerator.is_main_process:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.progress.step, **values}) + "\n")

    def _save(self) -> None:
        if self.folder is None or not self.accelerator.is_main_process:
            return
        checkpoint.save(
            self.folder / "checkpoint.safetensors",
            {n: p.detach() for n, p in self.parameters.items()},
            self.best,
            self.optimizer,
            self.scheduler.state_dict(),
            self.progress,
            self.identity,
        )

    def _restore(self) -> None:
        """Continue from the folder's checkpoint, if it has one."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path, metrics = self.folder / "checkpoint.safetensors", self.folder / "metrics.jsonl"
        if not path.exists():
            metrics.unlink(missing_ok=True)
            return
        found = checkpoint.load(path, self.identity)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(found.parameters[name])
        self.best = {n: t.to(self.model.device) for n, t in found.best.items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": found.optimizer})
        self.scheduler.load_state_dict(found.scheduler)
        self.progress = found.progress
        if metrics.exists():
            lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= found.progress.step]
            metrics.write_text("".join(kept), encoding="utf-8")

    def result(self) -> Trained:
        """The best state, baked."""
        chosen = self.best if self.progress.best_loss is not None else self.parameters
        with torch.no_grad():
            baked = self.method.bake(State(dict(chosen), self.state.text), self.model)
        tensors = {n: t.detach().cpu() for n, t in baked.tensors.items()}
        base = {"name": self.model.name, "fingerprint": self.model.fingerprint}
        warm = self.progress.step_seconds[_COLD_STEPS:] or self.progress.step_seconds
        return Trained(
            Adaptation(self.method, State(tensors, baked.text), self.task.template, base),
            steps=self.progress.step,
            best_step=self.progress.best_step or self.progress.step,
            validation_loss=self.progress.best_loss,
            seconds=self.progress.seconds,
            step_seconds=statistics.median(warm) if warm else 0.0,
            tokens=self.progress.tokens,
            truncated=self.rows.truncated,
        )


def row_room(model: FrozenLM, edits: Edits, max_length: int | None) -> int:
    """The tokens that a row may have: a prefix's positions come off the model's context."""
    context = model.shape.context
    return min(max_length or context, context) - edits.prefix_length


def _accelerator(precision: str, model: FrozenLM) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from peftlab.measure import choose_precision

    chosen = choose_precision(model.shape.parameters.values(), model.device, precision)
    mixed = "no" if chosen.name == "fp32" else chosen.name
    shared = AcceleratorState._shared_state
    if shared and shared.get("_mixed_precision") != mixed:
        AcceleratorState._reset_state()  # one process trains in several precisions
    return Accelerator(mixed_precision=mixed, cpu=model.device.type == "cpu")


def _optimizer(config: TrainConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # Fixed rate and no scaling by the parameter's size, as in the prompt tuning paper.
        return Adafactor(
            groups, scale_parameter=False, relative_step=False, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


@contextmanager
def _graceful() -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM in a list; a second Ctrl-C interrupts at once."""
    stop: list[int] = []

    def note(number: int, _: Any) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.append(number)

    try:
        previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # signals can be caught in the main thread alone
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _step_of(line: str) -> float:
    """A half-written last line belongs to no step that is kept."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):
        return math.inf
