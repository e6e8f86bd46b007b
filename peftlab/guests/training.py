"""A guest in the training loop of all methods: same rows, order, schedule, stopping and journal."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.guests.guest import Guest
from peftlab.guests.model import GuestModel, PlainBase
from peftlab.methods.base import State
from peftlab.processes import ALONE
from peftlab.token_limits import max_row_tokens
from peftlab.training import TrainConfig, optimise
from peftlab.training.checkpoint import Progress
from peftlab.training.data import Data
from peftlab.training.display import Display, silent
from peftlab.training.journal import Journal
from peftlab.training.loop import COLD_STEPS, Loop, Validated
from peftlab.training.rows import Order, Piece, Rows
from peftlab.training.steps import Descent
from peftlab.training.stopping import graceful
from peftlab.training.tracking import Listen

if TYPE_CHECKING:
    from peftlab.tasks import Task


@dataclass(frozen=True)
class TrainedGuest:
    """A finished training, as `Trained` of our own methods; the model holds the best state.

    Attributes:
        trainable, stored: numbers that were trained, and that PEFT saves.
    """

    model: GuestModel
    steps: int
    best_step: int
    validation_loss: float | None
    seconds: float
    step_seconds: float
    tokens: int
    passes: int
    validated: int
    validation_seconds: float
    truncated: int
    losses: list[float]
    trainable: int
    stored: int


def train(
    base: PlainBase,
    guest: Guest,
    task: Task,
    config: TrainConfig | None = None,
    *,
    folder: Path | None = None,
    display: Display = silent,
    validated: Validated | None = None,
    listen: Listen | None = None,
) -> TrainedGuest:
    """Train a guest under the settings of all other methods; the best state is kept.

    `share`, `fast` and the trunk's settings concern our own forward and change nothing here.

    Args:
        base: used up: PEFT's modules stay in it.
        folder: where `metrics.jsonl` and the checkpoint go. A run that was cut off there continues;
            one whose method keeps more than tensors (AdaLoRA's ranks) begins again.
        validated, listen: as of our own methods.

    Raises:
        Diverged, Interrupted: as of our own methods.
        InputError: PEFT cannot put the method into this base.
    """
    config = config or TrainConfig()
    if config.recompute:
        base.model.gradient_checkpointing_enable({"use_reentrant": False})
    run = _GuestRun(base, guest, task, config, folder)
    run.validated, run.journal.listen = validated, listen
    with graceful() as stop:
        run.go(display, stop)
    return run.finished()


class _GuestRun(Loop):
    """The loop's run, with PEFT's forward in the place of ours."""

    steps: _GuestDescent

    def __init__(
        self, base: PlainBase, guest: Guest, task: Task, config: TrainConfig, folder: Path | None
    ) -> None:
        self.model: Any
        self.method: Any
        self.model, self.method, self.task, self.config = base, guest, task, config
        self.progress = Progress()
        steps = config.total_steps(len(task.pairs("train")))
        self.guest = GuestModel(base, guest, steps, config.seed)
        self.data = self._data()
        self.steps = _GuestDescent(self.guest, self.budget.points, base, guest, config)
        self.resumable = self.steps.allocator is None
        self.best = self.steps.snapshot()
        self.journal = Journal(folder, self._identity(), self.steps.accelerator.is_main_process)

    def _data(self) -> Data:
        context, virtual = self.model.shape.context, self.guest.virtual_tokens
        limit = max_row_tokens(context, self.config.max_length, virtual)
        template, tokenizer = self.task.template, self.model.tokenizer
        rows = Rows(self.task.pairs("train"), template, tokenizer, limit)
        pairs = self.task.pairs("validation")[: self.config.validation_limit]
        validation = Rows(pairs, template, tokenizer, limit)
        order = Order(len(rows), self.config.rows_a_step, self.config.seed)
        return Data(rows, validation, order, self.config.total_steps(len(rows)), None, None)

    def validation_loss(self) -> float:
        with self.steps.accelerator.autocast():
            sums, counts = self.guest.row_losses(list(self.data.validation))
        return sum(sums) / sum(counts)

    def save(self) -> None:
        if self.resumable:
            super().save()

    def finished(self) -> TrainedGuest:
        """The best state, in the model."""
        progress, validated = self.progress, self.progress.best_loss is not None
        self.guest.install((self.best if validated else self.steps.snapshot()).tensors)
        self.guest.peft.eval()
        warm = progress.step_seconds[COLD_STEPS:] or progress.step_seconds
        return TrainedGuest(
            self.guest,
            steps=progress.step,
            best_step=progress.best_step if validated else progress.step,
            validation_loss=progress.best_loss,
            seconds=progress.seconds,
            step_seconds=statistics.median(warm) if warm else 0.0,
            tokens=progress.tokens,
            passes=progress.passes,
            validated=progress.validated,
            validation_seconds=progress.validation_seconds,
            truncated=len(self.data.rows.cut),
            losses=progress.losses,
            trainable=self.guest.trainable,
            stored=self.guest.stored,
        )


class _GuestDescent(Descent):
    """The loop's descent; the loss is PEFT's, and so are the tensors that move."""

    def __init__(
        self, guest: GuestModel, points: int, base: Any, method: Any, config: TrainConfig
    ) -> None:
        self.guest = guest
        accelerator = optimise.accelerator(config.precision, base, ALONE)
        parts = (base, method, config, State(dict(guest.tensors)), accelerator, ALONE)
        super().__init__(points, *parts)
        guest.install(self.state.tensors)
        guest.peft.train()
        inner = guest.peft.base_model
        self.allocator = getattr(inner, "update_and_allocate", None)
        self.step = 0
        if self.allocator is not None:
            # After the optimiser's step, while there are gradients: PEFT's own order.
            self.optimizer.optimizer.register_step_post_hook(lambda *_: self._allocate())

    def _allocate(self) -> None:
        assert self.allocator is not None
        self.allocator(self.step)
        self.step += 1

    def _loss(self, data: Data, piece: Piece, seed: int) -> tuple[torch.Tensor, int]:
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with self.accelerator.autocast(), torch.random.fork_rng(devices):
            # Of PEFT's dropout, another one for each micro-batch.
            torch.manual_seed(self.config.seed * 1_000_003 + seed + piece.places[0])
            loss = self.guest.loss(piece.rows, self.config.label_smoothing)
        return loss, sum(len(row.ids) for row in piece.rows)
