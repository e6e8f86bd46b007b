"""The training loop: the same for every method, on any device, resumable bit for bit on CPU."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.edits import Edits
from peftlab.errors import PeftlabError
from peftlab.frozen.batch import pack
from peftlab.loss import mean_loss, token_losses, training_row
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import Method, State
from peftlab.train import checkpoint, optimise
from peftlab.train.checkpoint import Progress
from peftlab.train.config import TrainConfig
from peftlab.train.display import Display, silent
from peftlab.train.rows import Order, Rows
from peftlab.train.search import Examples
from peftlab.train.stopping import graceful
from peftlab.trunk import Trunk, TrunkStore

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Task

_WORTH_KEEPING = 1.5  # passes over the rows from which keeping the trunk's activations pays
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
        losses: every step's loss. trunk_bytes: kept activations of the frozen trunk.
    """

    adaptation: Adaptation
    steps: int
    best_step: int
    validation_loss: float | None
    seconds: float
    step_seconds: float
    tokens: int
    truncated: int
    losses: list[float]
    trunk_bytes: int


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
) -> Trained:
    """Train one adaptation; the state with the lowest validation loss is kept.

    Args:
        folder: where `metrics.jsonl` and the checkpoint go. A run that was cut off there continues.
        start: a state to start from, instead of the method's own initialisation.
        store: where the frozen trunk's activations are kept; one that several trainings share
            (seeds, learning rates) fills once. By default each run has its own, in its folder.

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
    if store is None:
        place = folder / "trunk" if folder is not None else None
        store = TrunkStore(config.trunk_memory, config.trunk_disk, place)
    run = _Run(model, method, task, config, state, folder, display, store)
    if method.trains or method.searches:
        with graceful() as stop:
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
    store: TrunkStore
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        template = self.method.template(self.task.template, self.state)
        device = self.model.device
        self.parameters: dict[str, torch.Tensor] = {
            name: torch.nn.Parameter(tensor.to(device))
            for name, tensor in self.state.tensors.items()
        }
        self.best = self._snapshot()
        room = row_room(self.model, self._baked(), self.config.max_length)
        tokenizer = self.model.tokenizer
        self.rows = Rows(self.task.pairs("train"), template, tokenizer, room)
        validation = self.task.pairs("validation")[: self.config.validation_limit]
        self.validation = Rows(validation, template, tokenizer, room)
        self.total = self.config.total_steps(len(self.rows))
        self.order = Order(len(self.rows), self.config.rows_a_step, self.config.seed)
        self.trunk, self.validation_trunk = self._trunks()

    def _trunks(self) -> tuple[Trunk | None, Trunk | None]:
        """The kept trunks of both splits, where blocks stay untouched and are passed repeatedly."""
        config, shape = self.config, self.model.shape
        block = min(self._baked().lowest_block(shape), shape.layers - 1)
        if block < 1 or not config.fast or self.method.searches:
            return None, None
        visits = self.total * config.rows_a_step
        evaluations = self.total // config.evaluate_every if config.evaluate_every else 1
        again, often = visits >= _WORTH_KEEPING * len(self.rows), evaluations > 1
        return (
            Trunk(self.model, self.rows, block, self.store) if again else None,
            Trunk(self.model, self.validation, block, self.store) if often else None,
        )

    @property
    def identity(self) -> str:
        """A hash of all that decides the result of this run."""
        decides = {
            "method": self.method.name,
            "settings": self.method.settings(),
            "config": asdict(
                replace(self.config, checkpoint_seconds=0.0, trunk_memory=0, trunk_disk=0)
            ),
            "task": self.task.source.fingerprint,
            "template": self.task.template.to_dict(),
            "base": self.model.fingerprint,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()

    def _snapshot(self) -> State:
        tensors = {name: p.detach().clone() for name, p in self.parameters.items()}
        return State(tensors, self.state.text)

    @property
    def _current(self) -> State:
        return State(dict(self.parameters), self.state.text)

    def _baked(self, dropout_seed: int | None = None) -> Edits:
        baked = self.method.bake(self._current, self.model)
        return self.method.edits(baked, self.model, dropout_seed)

    def go(self, stop: list[int]) -> None:
        """All steps that are left, then the best state."""
        self._prepare()
        self._restore()
        if self.method.searches and self.progress.step == 0:
            self._validate()  # a search may find nothing better than its start
        last_save = time.monotonic()
        with self.display(self.method.name, self.total, self.progress.step) as show:
            while self.progress.step < self.total and not self.progress.finished:
                loss, speed, notes = self._step()
                show(self.progress.step, loss, speed)
                self._log({"loss": loss, "tokens_per_second": speed, **notes})
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

        self.accelerator = optimise.accelerator(self.config.precision, self.model)
        if self.method.searches:
            return
        rate = self.config.learning_rate or self.method.learning_rate
        groups = [
            {**group, "params": [self.parameters[name] for name in group["params"]]}
            for group in self.method.groups(self.state, rate)
        ]
        chosen = optimise.optimizer(self.config, groups)
        warmup = round(self.config.warmup * self.total)
        self.scheduler = get_scheduler(self.config.schedule, chosen, warmup, self.total)
        self.optimizer = self.accelerator.prepare(chosen)

    def _step(self) -> tuple[float, float, dict[str, Any]]:
        """One step; returns its loss per target token, tokens/s and what else is recorded of it."""
        begun, indices = time.perf_counter(), self.order.step(self.progress.step)
        loss, tokens, notes = (self._search if self.method.searches else self._descend)(indices)
        seconds = time.perf_counter() - begun
        self.progress.step += 1
        self.progress.seconds += seconds
        self.progress.tokens += tokens
        self.progress.step_seconds.append(seconds)
        self.progress.losses.append(loss)
        return loss, tokens / seconds, notes

    def _search(self, indices: Sequence[int]) -> tuple[float, int, dict[str, Any]]:
        """Let the method look for a better state; every process does the same."""
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.progress.step)
        template = self.task.template
        examples = Examples(self.model, template, self.rows, indices, self.config, rng)
        with self.accelerator.autocast():
            found = self.method.update(self._current, examples)
        self._adopt(found.state)
        return found.loss, examples.tokens, dict(found.notes)

    def _adopt(self, state: State) -> None:
        """Go on from this state, whose text may be another."""
        self.state, self.parameters = state, dict(state.tensors)
        template = self.method.template(self.task.template, state)
        self.validation = self.validation.under(template)

    def _descend(self, indices: Sequence[int]) -> tuple[float, int, dict[str, Any]]:
        """One step of the optimiser."""
        accelerator, step = self.accelerator, self.progress.step
        mine = indices[accelerator.process_index :: accelerator.num_processes]
        rows = [self.rows[i] for i in mine]
        targets = torch.tensor(
            float(sum(len(r.ids) - r.target_start for r in rows)), device=self.model.device
        )
        # All targets of the global batch divide the sum: micro-batches weigh by their tokens.
        targets = accelerator.reduce(targets, "sum")
        total, tokens = torch.zeros((), device=self.model.device), 0
        for micro in range(0, len(rows), self.config.batch_size):
            size = slice(micro, micro + self.config.batch_size)
            loss, packed = self._loss(rows[size], mine[size], step * 65_537 + micro)
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
        return loss_value, tokens, {"lr": float(self.scheduler.get_last_lr()[0])}

    def _loss(
        self, rows: list[Encoded], indices: Sequence[int], seed: int
    ) -> tuple[torch.Tensor, int]:
        with self.accelerator.autocast():
            edits = self._baked(self.config.seed * 1_000_003 + seed)
            packed = pack(
                [training_row(row) for row in rows],
                [edits],
                device=self.model.device,
                share=self.config.share and self.trunk is None,
                checkpoint=self.config.recompute,
                fast=self.config.fast,
            )
            if self.trunk is not None:
                self.trunk.resume(packed, indices)
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
        if step == self.total or (every and step % every == 0):
            self._validate()

    def _validate(self) -> None:
        if not len(self.validation):
            return
        step = self.progress.step
        with torch.no_grad(), self.accelerator.autocast():
            edits = self._baked().detach()
            loss = mean_loss(self.model, edits, self.validation, self.validation_trunk)
        self._log({"validation_loss": loss})
        if self.progress.best_loss is None or loss < self.progress.best_loss:
            self.progress.best_loss, self.progress.best_step, self.progress.stale = loss, step, 0
            self.best = self._snapshot()
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
            self._current,
            self.best,
            None if self.method.searches else (self.optimizer, self.scheduler),
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
        self.best = _on(found.best, self.model.device)
        if self.method.searches:
            self._adopt(_on(found.state, self.model.device))
        else:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(found.state.tensors[name])
            moments = {**self.optimizer.state_dict(), "state": found.optimizer}
            self.optimizer.load_state_dict(moments)
            self.scheduler.load_state_dict(found.scheduler)
            # The next step's rate lies in the optimiser's groups, where a schedule only writes it.
            for group, rate in zip(
                self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True
            ):
                group["lr"] = rate
        self.progress = found.progress
        if metrics.exists():
            lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= found.progress.step]
            whole = metrics.with_name(".metrics.jsonl")
            whole.write_text("".join(kept), encoding="utf-8")
            whole.replace(metrics)

    def result(self) -> Trained:
        """The best state, baked."""
        validated = self.progress.best_loss is not None
        with torch.no_grad():
            chosen = self.best if validated else self._snapshot()
            baked = self.method.bake(chosen, self.model)
        tensors = {n: t.detach().cpu() for n, t in baked.tensors.items()}
        warm = self.progress.step_seconds[_COLD_STEPS:] or self.progress.step_seconds
        return Trained(
            Adaptation(
                self.method, State(tensors, baked.text), self.task.template, base_of(self.model)
            ),
            steps=self.progress.step,
            best_step=self.progress.best_step if validated else self.progress.step,
            validation_loss=self.progress.best_loss,
            seconds=self.progress.seconds,
            step_seconds=statistics.median(warm) if warm else 0.0,
            tokens=self.progress.tokens,
            truncated=self.rows.truncated,
            losses=self.progress.losses,
            trunk_bytes=self.store.bytes_in_memory + self.store.bytes_on_disk,
        )


def _on(state: State, device: torch.device) -> State:
    return State({n: t.to(device) for n, t in state.tensors.items()}, state.text)


def row_room(model: FrozenLM, edits: Edits, max_length: int | None) -> int:
    """The tokens that a row may have: a prefix's positions come off the model's context."""
    context = model.shape.context
    return min(max_length or context, context) - edits.prefix_length


def _step_of(line: str) -> float:
    """A half-written last line belongs to no step that is kept."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):
        return math.inf
