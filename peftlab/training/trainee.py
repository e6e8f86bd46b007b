"""What the loop trains: one of our methods on the frozen model, or a guest's on its own model.

The loop knows budgets, order, validation, checkpoints and stopping; a trainee knows its data, how
its state moves, and what its losses are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from peftlab.frozen.sharding import is_sharded, whole
from peftlab.loss import Mean, mean_of, row_losses
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import Method, State
from peftlab.processes import Processes
from peftlab.training import optimise
from peftlab.training.budget import Budget
from peftlab.training.config import TrainConfig
from peftlab.training.data import Data
from peftlab.training.steps import Descent, Distillation, Search, Steps, on_device
from peftlab.training.teacher import Teacher
from peftlab.trunk import TrunkStore

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task

Made_co = TypeVar("Made_co", covariant=True)


class Trainable(Protocol):
    """What of a method decides a run, of our own ones and of guests."""

    @property
    def name(self) -> str: ...

    def on(self, task: Task) -> Trainable:
        """The same, with what the task decides of its settings."""

    def identity(self) -> dict[str, Any]: ...


class Trainee(Protocol[Made_co]):
    """A method in training.

    Attributes:
        name: for messages. searches: whether a step looks for a better state, without a gradient.
        judges: whether it keeps what it holds for the best by itself, whatever the losses say.
        resumable: whether its checkpoint continues it.
        data: rows of both splits. steps: its state, and how it moves.
        skipped: training rows that were left out for their length.
        kept_bytes: what it has kept of the frozen trunk's activations.
        spared_seconds: that it has not had to compute since others had, see `TrunkStore.spared`.
    """

    name: str
    searches: bool
    judges: bool
    resumable: bool
    data: Data
    steps: Steps
    skipped: int

    @property
    def is_sharded(self) -> bool:
        """Whether the base is split over the processes."""

    @property
    def kept_bytes(self) -> int: ...

    @property
    def spared_seconds(self) -> float: ...

    def moved(self) -> None:
        """The state is another now, after a step or a checkpoint."""

    def validation_loss(self) -> Mean:
        """The loss of the current state on the validation split."""

    def settled(self, state: State) -> State:
        """A state without what only its search needs."""

    def made(self, state: State) -> Made_co:
        """A state as it is used."""


class MethodInTraining:
    """One of our methods on the frozen model; what it makes is an `Adaptation`.

    Args:
        start: the state before the first step.
        store: where the frozen trunk's activations are kept.
    """

    resumable = True

    def __init__(
        self,
        model: FrozenLM,
        method: Method,
        task: Task,
        config: TrainConfig,
        start: State,
        store: TrunkStore,
        processes: Processes,
    ) -> None:
        self.model, self.method, self.task = model, method, task
        self.store, self.processes = store, processes
        self.name, self.searches, self.judges = method.name, method.searches, method.judges
        self.skipped = task.skipped.get("train", 0)
        accelerator = optimise.accelerator(config.precision, model, processes)
        start = on_device(start, model.device)
        processes.from_first([t for t in start.tensors.values() if not is_sharded(t)])
        parts: Any = (model, method, config, start, accelerator, processes)
        self.steps = Steps(*parts)
        template = method.template(task.template, start)
        kept = store if method.trains else None
        self.data = Data.of(model, task, template, config, self.steps.edits(), kept)
        if method.searches:
            self.steps = Search(task, *parts)
        elif method.trains:
            self.steps = self._descent(Budget.of(config, len(self.data.rows)).points, *parts)

    def _descent(self, points: int, *parts: Any) -> Descent:
        return Descent(points, *parts)

    @property
    def is_sharded(self) -> bool:
        return self.model.is_sharded

    @property
    def kept_bytes(self) -> int:
        return self.store.bytes_in_memory + self.store.bytes_on_disk

    @property
    def spared_seconds(self) -> float:
        return self.store.spared

    def moved(self) -> None:
        if self.searches:  # the text may be another now
            template = self.method.template(self.task.template, self.steps.state)
            self.data = self.data.validated_under(template)

    def validation_loss(self) -> Mean:
        with torch.no_grad(), self.steps.accelerator.autocast():
            edits = self.steps.edits().detach()
            data, processes = self.data, self.processes
            own = (data.validation, data.validation_trunk, processes, data.pasts)
            return mean_of(*row_losses(self.model, edits, *own))

    def settled(self, state: State) -> State:
        """A state without what only its search needs."""
        return self.method.materialise(state, self.model)

    def made(self, state: State) -> Adaptation:
        with torch.no_grad():
            materialised = self.method.materialise(state, self.model)
        tensors = {n: whole(t.detach()).cpu() for n, t in materialised.tensors.items()}
        kept = State(tensors, materialised.text)
        return Adaptation(self.method, kept, self.task.template, base_of(self.model))


class StudentInTraining(MethodInTraining):
    """One of our methods that learns another adaptation's distribution; losses are divergences."""

    def __init__(self, teacher: Teacher, *parts: Any) -> None:
        self.teacher = teacher
        super().__init__(*parts)

    def _descent(self, points: int, *parts: Any) -> Descent:
        return Distillation(self.teacher, points, *parts)

    def validation_loss(self) -> Mean:
        rows, edits = self.data.validation, self.steps.edits().detach()
        examples = [rows.example(i) for i in range(len(rows))]
        with self.steps.accelerator.autocast():
            return mean_of(*self.teacher.divergences(edits, rows, examples))
