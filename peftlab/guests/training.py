"""A guest in the training loop of all methods: same rows, order, schedule, stopping and journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.errors import InputError
from peftlab.guests.alora import check_rows, check_settings, with_ids
from peftlab.guests.guest import Guest
from peftlab.guests.model import GuestModel, PlainBase
from peftlab.loss import Mean, mean_of
from peftlab.methods.base import State
from peftlab.processes import ALONE
from peftlab.tasks.fit import fitted, shortened
from peftlab.token_limits import max_row_tokens
from peftlab.training import TrainConfig, optimise
from peftlab.training.budget import Budget
from peftlab.training.data import Data
from peftlab.training.display import Display, silent
from peftlab.training.loop import Loop, Validated, identity_of
from peftlab.training.result import Trained
from peftlab.training.rows import Piece, Rows
from peftlab.training.steps import Descent
from peftlab.training.tracking import Listen
from peftlab.training.trainee import Trainee

if TYPE_CHECKING:
    from peftlab.tasks import Task


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
) -> Trained[GuestModel]:
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
    task = fitted(task, base.tokenizer, ("train", "validation"))
    if config.recompute:
        base.model.gradient_checkpointing_enable({"use_reentrant": False})
    trainee = GuestInTraining(base, guest, task, config)
    identity = identity_of(guest, task, config, base.fingerprint)
    run = Loop[GuestModel](trainee, config, folder, identity, validated, listen=listen)
    run.go(display)
    return run.result()


class GuestInTraining(Trainee[GuestModel]):
    """A guest in the loop: its model's losses in the place of ours; what it makes is that model."""

    searches = judges = is_sharded = False
    kept_bytes = 0
    spared_seconds = 0.0

    def __init__(self, base: PlainBase, guest: Guest, task: Task, config: TrainConfig) -> None:
        self.name = guest.name
        steps = config.total_steps(len(task.pairs("train")))
        guest = with_ids(guest, task.template, base.tokenizer)
        self.model = GuestModel(base, guest, steps, config.seed)
        limit = max_row_tokens(base.shape.context, config.max_length, self.model.virtual_tokens)
        splits = ("train", "validation")
        task = shortened(task, task.template, base.tokenizer, limit, splits)
        self.skipped = task.skipped.get("train", 0)
        if task.choices is not None and task.choices.loss == "contrast":
            raise InputError(
                f"{guest.name}: PEFT's losses are of right options alone: -o choice_loss=right"
            )
        self.data = Data.alone(task, task.template, config, base.tokenizer, limit)
        check_settings(guest, task.decoding.beams, config.recompute)
        test = Rows(task.pairs("test"), task.template, base.tokenizer, limit)
        of = {"train": self.data.rows, "validation": self.data.validation, "test": test}
        for split, rows in of.items():
            check_rows(guest, rows, split)
        points = Budget.of(config, len(self.data.rows)).points
        self.steps = _GuestDescent(self.model, points, base, guest, config)
        self.resumable = self.steps.allocator is None

    def moved(self) -> None:
        """Its text stays."""

    def validation_loss(self) -> Mean:
        with self.steps.accelerator.autocast():
            sums, counts = self.model.row_losses(list(self.data.validation))
        return mean_of(sums, counts)

    def settled(self, state: State) -> State:
        return state

    def made(self, state: State) -> GuestModel:
        self.model.install(state.tensors)
        self.model.peft.eval()
        return self.model


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
