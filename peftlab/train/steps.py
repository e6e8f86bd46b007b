"""A step of training: down the gradient, or, for methods that search, to a better candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from peftlab.edits import Edits
from peftlab.frozen.batch import pack
from peftlab.frozen.offload import check_device, kept_on_cpu
from peftlab.loss import token_losses, training_row
from peftlab.methods.base import Method, State
from peftlab.train import optimise
from peftlab.train.checkpoint import Descending, Loaded
from peftlab.train.config import TrainConfig
from peftlab.train.data import Data
from peftlab.train.result import Diverged
from peftlab.train.search import Examples

if TYPE_CHECKING:
    from accelerate import Accelerator

    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Template


@dataclass(frozen=True)
class Taken:
    """One step's loss per target token, its packed tokens, and what else to record.

    passes: tokens through the base, those of a backward pass once more.
    """

    loss: float
    tokens: int
    passes: int
    notes: dict[str, Any] = field(default_factory=dict)


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
    ) -> None:
        self.model, self.method, self.config = model, method, config
        self.state, self.accelerator = state, accelerator

    def edits(self, dropout_seed: int | None = None) -> Edits:
        """The edits of the current state."""
        baked = self.method.bake(self.state, self.model)
        return self.method.edits(baked, self.model, dropout_seed)

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
    def descending(self) -> Descending | None:
        """Optimiser and schedule, where there are any."""
        return None

    def restore(self, found: Loaded) -> None:
        """Go on from a checkpoint."""
        self.state = on_device(found.state, self.model.device)


class Search(Steps):
    """The method looks for a better state; every process does the same."""

    def __init__(self, template: Template, *parts: Any) -> None:
        super().__init__(*parts)
        self.template = template

    def take(self, step: int, data: Data) -> Taken:
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        indices = data.order.step(step)
        examples = Examples(self.model, self.template, data.rows, indices, self.config, rng)
        with self.accelerator.autocast():
            found = self.method.update(self.state, examples)
        self.state = found.state
        return Taken(found.loss, examples.tokens, examples.passes, dict(found.notes))


class Descent(Steps):
    """A step of the optimiser on the gradient of the whole accumulated global batch.

    Args:
        points: the length of the learning rate's schedule, see `Budget.points`.
    """

    def __init__(self, points: int, *parts: Any) -> None:
        super().__init__(*parts)
        from transformers import get_scheduler

        if self.config.offload:
            check_device(self.model.device)

        live: dict[str, torch.Tensor] = {
            name: torch.nn.Parameter(tensor.to(self.model.device))
            for name, tensor in self.state.tensors.items()
        }
        self.state = State(live, self.state.text)
        rate = self.config.learning_rate or self.method.learning_rate
        groups = [
            {**group, "params": [live[name] for name in group["params"]]}
            for group in self.method.groups(self.state, rate)
        ]
        chosen = optimise.optimizer(self.config, groups)
        warmup = round(self.config.warmup * points)
        self.scheduler = get_scheduler(self.config.schedule, chosen, warmup, points)
        self.optimizer = self.accelerator.prepare(chosen)

    @property
    def descending(self) -> Descending:
        return self.optimizer, self.scheduler

    def take(self, step: int, data: Data) -> Taken:
        accelerator = self.accelerator
        mine = data.order.step(step)[accelerator.process_index :: accelerator.num_processes]
        rows = [data.rows[i] for i in mine]
        targets = torch.tensor(
            float(sum(len(r.ids) - r.target_start for r in rows)), device=self.model.device
        )
        # All targets of the global batch divide the sum: micro-batches weigh by their tokens.
        targets = accelerator.reduce(targets, "sum")
        total, tokens = torch.zeros((), device=self.model.device), 0
        for micro in range(0, len(rows), self.config.batch_size):
            size = slice(micro, micro + self.config.batch_size)
            with self._offloading():
                loss, packed = self._loss(data, rows[size], mine[size], step * 65_537 + micro)
            accelerator.backward(loss / targets)
            total, tokens = total + loss.detach(), tokens + packed
        loss_value = float(accelerator.reduce(total, "sum") / targets)
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

    def _loss(
        self, data: Data, rows: list[Encoded], indices: Sequence[int], seed: int
    ) -> tuple[torch.Tensor, int]:
        with self.accelerator.autocast():
            packed = pack(
                [training_row(row) for row in rows],
                [self.edits(self.config.seed * 1_000_003 + seed)],
                device=self.model.device,
                share=self.config.share and data.trunk is None,
                checkpoint=self.config.recompute,
                fast=self.config.fast,
            )
            if data.trunk is not None:
                data.trunk.resume(packed, indices)
            losses = token_losses(self.model, packed, rows, self.config.label_smoothing)
        return losses.sum(), len(packed.ids)

    def _move(self) -> None:
        live = list(self.state.tensors.values())
        if self.accelerator.num_processes > 1:
            # Only the adaptation's gradients travel between processes; nothing of the base does.
            for parameter in live:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(gradient, "sum")
        if self.config.clip:
            self.accelerator.clip_grad_norm_(live, self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def follow(self, point: int) -> None:
        self.scheduler.last_epoch = point - 1  # which `step` raises by one
        self.scheduler.step()

    def restore(self, found: Loaded) -> None:
        with torch.no_grad():
            for name, parameter in self.state.tensors.items():
                parameter.copy_(found.state.tensors[name])
        moments = {**self.optimizer.state_dict(), "state": found.optimizer}
        self.optimizer.load_state_dict(moments)
        self.scheduler.load_state_dict(found.scheduler)
        # The next step's rate lies in the optimiser's groups, where a schedule only writes it.
        for group, rate in zip(
            self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True
        ):
            group["lr"] = rate


def on_device(state: State, device: torch.device) -> State:
    """The same state, its tensors on a device."""
    return State({n: t.to(device) for n, t in state.tensors.items()}, state.text)
