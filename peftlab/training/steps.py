"""A step of training: down the gradient, or, for methods that search, to a better candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.batch import Batch
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.offload import check_device, kept_on_cpu
from peftlab.frozen.packing import pack
from peftlab.frozen.sharding import placed
from peftlab.loss import held_against, token_losses, training_row
from peftlab.methods.base import Method, State
from peftlab.pasts import continued
from peftlab.processes import Processes
from peftlab.tasks import Encoded
from peftlab.training import optimise
from peftlab.training.checkpoint import Checkpoint, Descending
from peftlab.training.config import DECAYS_LATE, TrainConfig, decaying_steps
from peftlab.training.data import Data
from peftlab.training.parameters import Parameters
from peftlab.training.result import Diverged
from peftlab.training.rows import Piece
from peftlab.training.search import Examples
from peftlab.training.teacher import Teacher

if TYPE_CHECKING:
    from accelerate import Accelerator

    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task


@dataclass(frozen=True)
class Taken:
    """One step's loss per target token, its rows' tokens, and what else to record.

    forward_tokens: tokens through the base, those of a backward pass once more. What is kept of
    tokens before the cue counts as if it were read as others are, so that all take equal steps.
    ended: a search has nothing left to try.
    """

    loss: float
    tokens: int
    forward_tokens: int
    notes: dict[str, Any] = field(default_factory=dict)
    ended: bool = False


Moments = dict[int, dict[str, Any]]


class Steps:
    """The state of a run and how it moves; this one never does.

    Attributes:
        state: the current one; its tensors are live.
    """

    def __init__(
        self,
        model: FrozenLM,
        method: Method,
        config: TrainConfig,
        state: State,
        accelerator: Accelerator,
        processes: Processes,
    ) -> None:
        self.model, self.method, self.config = model, method, config
        self.state, self.accelerator, self.processes = state, accelerator, processes

    def edits(self, dropout_seed: int | None = None) -> Edits:
        """The edits of the current state."""
        materialised = self.method.materialise(self.state, self.model)
        return self.method.edits(materialised, self.model, dropout_seed)

    def snapshot(self) -> State:
        """A copy of the current state."""
        tensors = {name: p.detach().clone() for name, p in self.state.tensors.items()}
        return State(tensors, self.state.text)

    def take(self, step: int, data: Data) -> Taken:
        """Take step 0, 1, …"""
        raise NotImplementedError(f"{self.method.name} has nothing to train")

    def follow(self, point: int) -> None:
        """Set what depends on how much of the budget is used, see `Budget.point`."""

    @property
    def descending(self) -> Descending:
        """What the optimiser and the schedule remember."""
        return Descending({}, {})

    def restore(self, restored: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self.state = self.placed(restored.state)

    def placed(self, state: State) -> State:
        """A whole state, its tensors where and as those of the current one are."""
        current = self.state.tensors
        tensors = {
            n: placed(t, current[n]) if n in current else t.to(self.model.device)
            for n, t in state.tensors.items()
        }
        return State(tensors, state.text)


class Search(Steps):
    """The method looks for a better state, alike in every process; they share the scoring."""

    def __init__(self, task: Task, *parts: Any) -> None:
        super().__init__(*parts)
        self.task = task

    def take(self, step: int, data: Data) -> Taken:
        if data.rows.contrasts:
            raise InputError(
                f"{self.method.name} scores right options alone: use -o choice_loss=right"
            )
        if self.method.judges and self.processes.count > 1:
            raise InputError(
                f"{self.method.label} has its instructions written, which several processes would "
                "have done differently: start one"
            )
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        parts = (self.config, rng, self.processes)
        indices = data.order.step(step)
        examples = Examples(self.model, self.method, self.task, data.rows, indices, *parts)
        with self.accelerator.autocast():
            updated = self.method.update(self.state, examples)
        self.state = updated.state
        counts = (examples.tokens, examples.forward_tokens)
        return Taken(updated.loss, *counts, dict(updated.notes), updated.ended)


class Descent(Steps):
    """A step of the optimiser on the gradient of the whole accumulated global batch.

    Args:
        points: the length of the learning rate's schedule, see `Budget.points`.
    """

    def __init__(self, points: int, *parts: Any) -> None:
        super().__init__(*parts)
        from transformers import get_scheduler

        if self.config.offload:
            self._check_offload()
        self.parameters = Parameters(self.state.tensors, self.processes)
        self.state = State(self.parameters.live, self.state.text)
        if self.parameters.are_split:
            self._refuse_split()
        scale, held = self.model.scale, self.parameters.held
        rate = self.config.rate(self.method.rate_on(scale))
        named = self.method.groups(self.state, rate, scale)
        self.names = [name for group in named for name in group["params"]]
        groups = [{**group, "params": [held[n] for n in group["params"]]} for group in named]
        chosen = optimise.optimizer(self.config, groups)
        warmup = round(self.config.warmup * points)
        decay = {"num_decay_steps": decaying_steps(points), "decay_type": "linear"}
        self.scheduler = get_scheduler(
            self.config.schedule,
            chosen,
            warmup,
            points,
            scheduler_specific_kwargs=decay if self.config.schedule == DECAYS_LATE else None,
        )
        self.optimizer = self.accelerator.prepare(chosen)

    def _check_offload(self) -> None:
        check_device(self.model.device)
        if self.model.is_sharded:
            raise InputError(
                "activations cannot wait in the CPU's memory on a sharded base, whose gathered "
                "weights would go there too: use --gradient-checkpointing, or --shard never"
            )

    def _refuse_split(self) -> None:
        if self.config.optimizer == "adafactor":
            raise InputError(
                "adafactor keeps sums over whole rows and columns, which are split here: use "
                "adamw, or --shard never"
            )
        if self.accelerator.mixed_precision == "fp16":
            raise InputError(
                "fp16 scales its loss by what every process sees, but the trained weights are "
                "split: use bf16, or --shard never"
            )

    @property
    def descending(self) -> Descending:
        moments = self._each_moment(self.optimizer.state_dict()["state"], "whole_moment")
        return Descending(moments, self.scheduler.state_dict())

    def _each_moment(self, moments: Moments, change: str) -> Moments:
        changed = getattr(self.parameters, change)
        return {
            index: {key: changed(self.names[index], value) for key, value in values.items()}
            for index, values in moments.items()
        }

    def take(self, step: int, data: Data) -> Taken:
        processes, whole = self.processes, Piece.of(data.rows, data.order.step(step))

        def share_of(process: int) -> list[Piece]:
            own, size = range(process, len(whole.rows), processes.count), self.config.batch_size
            return [whole.part(own[at : at + size]) for at in range(0, len(own), size)]

        # All targets of the global batch divide the sum: micro-batches weigh by their tokens.
        targets = sum(row.units for row in whole.rows)
        total, tokens = torch.zeros((), device=self.model.device), 0
        for piece, counts in processes.shares(share_of, even=self.model.is_sharded):
            with self._offloading():
                loss, packed = self._loss(data, piece, step * 65_537)
            self.accelerator.backward(loss / targets if counts else loss * 0.0)
            total, tokens = total + loss.detach() * counts, tokens + packed * counts
        loss_value = float(processes.sum([total])[0]) / targets
        if not math.isfinite(loss_value):
            raise Diverged(
                f"{self.method.name}: the loss is {loss_value} at step {step + 1}; lower the rate",
                step + 1,
            )
        rate = float(self.scheduler.get_last_lr()[0])
        self._move()
        return Taken(loss_value, tokens, 2 * tokens, {"lr": rate})

    def _offloading(self) -> AbstractContextManager[object]:
        if not self.config.offload:
            return nullcontext()
        return kept_on_cpu([*self.model.model.parameters(), *self.state.tensors.values()])

    def _loss(self, data: Data, piece: Piece, seed: int) -> tuple[torch.Tensor, int]:
        """The summed loss, and its rows' tokens."""
        rows = [one for row in piece.rows for one in row.alternatives()]
        places = [
            place
            for row, place in zip(piece.rows, piece.places, strict=True)
            for _ in range(1 + len(row.rivals))
        ]
        with self.accelerator.autocast():
            packed, options = self._packed(data, piece, rows, places, seed)
            smoothing = self.config.label_smoothing
            losses = token_losses(self.model, packed, rows, smoothing, options)
        if len(rows) == len(piece.rows):
            return losses.sum(), packed.tokens
        sums = [each.sum() for each in packed.split_kept(losses)]
        return held_against(sums, piece.rows).sum(), packed.tokens

    def _packed(
        self, data: Data, piece: Piece, rows: Sequence[Encoded], places: Sequence[int], seed: int
    ) -> tuple[Batch, ForwardOptions]:
        """Rows of a piece under the current edits, and how they are run."""
        packed = pack(
            continued(self.model, [training_row(row) for row in rows], data.pasts),
            [self.edits(self.config.seed * 1_000_003 + seed)],
            device=self.model.device,
            share=self.config.share and data.trunk is None,
            places=places,
            alike=piece.alike,
        )
        trunk = data.trunk
        options = ForwardOptions(
            # Sharded weights are gathered for their block, and again when it is recomputed.
            checkpoint=self.config.recompute or self.parameters.are_split,
            fast=self.config.fast,
            resume=None if trunk is None else trunk.states(packed, piece.indices),
        )
        return packed, options

    def _move(self) -> None:
        parameters = self.parameters
        parameters.collect()
        if self.config.clip and parameters.are_split:
            parameters.clip(self.config.clip)
        elif self.config.clip:  # which also knows the scale of an fp16 loss
            self.accelerator.clip_grad_norm_(list(parameters.held.values()), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def follow(self, point: int) -> None:
        self.scheduler.last_epoch = point - 1  # which `step` raises by one
        self.scheduler.step()

    def restore(self, restored: Checkpoint) -> None:
        self.parameters.set(restored.state.tensors)
        moments = self._each_moment(restored.optimizer, "held_moment")
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.scheduler.load_state_dict(restored.scheduler)
        # The next step's rate lies in the optimiser's groups, where a schedule only writes it.
        for group, rate in zip(
            self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True
        ):
            group["lr"] = rate


class Distillation(Descent):
    """A step of the optimiser down the divergence from a teacher, in the place of the loss."""

    def __init__(self, teacher: Teacher, points: int, *parts: Any) -> None:
        super().__init__(points, *parts)
        self.teacher = teacher

    def _loss(self, data: Data, piece: Piece, seed: int) -> tuple[torch.Tensor, int]:
        examples = [data.rows.example(i) for i in piece.indices]
        with self.accelerator.autocast():
            packed, options = self._packed(data, piece, piece.rows, piece.places, seed)
            with torch.no_grad():
                taught = self.teacher.rows(piece.rows, examples)
            losses = self.teacher.divergences_of(packed, taught, options)
        return losses.sum(), packed.tokens


def on_device(state: State, device: torch.device) -> State:
    """The same state, its tensors on a device."""
    return State({n: t.to(device) for n, t in state.tensors.items()}, state.text)
