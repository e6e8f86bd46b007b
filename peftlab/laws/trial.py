"""What a law is tried on: a method, a model and a few rows of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from peftlab.bases.fingerprint import fingerprint
from peftlab.edits import Edits
from peftlab.frozen.forward import PLAIN, ForwardOptions
from peftlab.frozen.packing import Row, pack
from peftlab.loss import token_losses, training_row
from peftlab.methods import State
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.pasts import continued
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods import Method
    from peftlab.tasks import Encoded, Example, Task

ROWS = 3  # of the task's test split
_TOLERANCE = 1e-4  # on models of any size and on any device


class Trial:
    """A method on a model: its first state, one moved away so that every tensor counts, and rows.

    Attributes:
        neighbours: edits of other owners that run beside the method's own, or between them.
        tolerance: see `law.require_close`.
        before: the fingerprint of the base before anything was done.
    """

    def __init__(
        self,
        method: Method,
        model: FrozenLM,
        task: Task,
        *,
        neighbours: Sequence[Edits] = (Edits(),),
        tolerance: float = _TOLERANCE,
    ) -> None:
        self.method, self.model, self.task = method, model, task
        self.neighbours, self.tolerance = tuple(neighbours), tolerance
        self.before = fingerprint(model.model.named_parameters())

    def start(self) -> State:
        """The state before training, made anew."""
        state = self.method.init(self.model, self.task, torch.Generator().manual_seed(3))
        return State({n: t.to(self.model.device) for n, t in state.tensors.items()}, state.text)

    @cached_property
    def first(self) -> State:
        """The state before training."""
        return self.start()

    @cached_property
    def moved(self) -> State:
        """A state some way from the start."""
        rng, tensors = torch.Generator().manual_seed(5), {}
        for name, tensor in self.first.tensors.items():
            tensors[name] = tensor + 0.1 * torch.randn(tensor.shape, generator=rng).to(tensor)
        return State(tensors, self.first.text)

    def edits(self, state: State, seed: int | None = None) -> Edits:
        """The edits of a state that is trained."""
        return self.method.edits(self.method.materialise(state, self.model), self.model, seed)

    @torch.no_grad()
    def adaptation(self, state: State) -> Adaptation:
        """The state, ready for use."""
        materialised = self.method.materialise(state, self.model)
        return Adaptation(self.method, materialised, self.task.template, base_of(self.model))

    def encode(
        self, example: Example, target: str | None, *, limit: int | None = None, **changes: Any
    ) -> Encoded:
        """One row, in the template that the method makes of the task's with these changes."""
        template = self.method.template(replace(self.task.template, **changes), self.first)
        if limit is None:
            taken = self.edits(self.first).prefix_length
            limit = max_row_tokens(self.model.shape.context, taken=taken)
        return template.encode(self.model.tokenizer, example, target, limit)

    @cached_property
    def encoded(self) -> list[Encoded]:
        """Rows of the test split as the method's template writes them."""
        return [self.encode(e, t) for e, t in self.task.pairs("test")[:ROWS]]

    def rows(self, owner: int = 0, count: int = ROWS) -> list[Row]:
        """Rows whose logits are asked for from the first target token on."""
        return [training_row(encoded, owner) for encoded in self.encoded[:count]]

    def plain_rows(self, owner: int = 0) -> list[Row]:
        """The same examples in the task's own template."""
        template, limit = self.task.template, max_row_tokens(self.model.shape.context)
        pairs = self.task.pairs("test")[:ROWS]
        plain = [template.encode(self.model.tokenizer, e, target, limit) for e, target in pairs]
        return [training_row(encoded, owner) for encoded in plain]

    def logits(
        self, rows: Sequence[Row], *owners: Edits, options: ForwardOptions = PLAIN
    ) -> list[torch.Tensor]:
        """Every row's kept logits, [kept, V] each, without gradients."""
        with torch.no_grad():
            batch = pack(continued(self.model, rows), owners, device=self.model.device)
            return batch.split_kept(self.model(batch, options))

    def losses(
        self,
        state: State,
        encoded: Sequence[Encoded] | None = None,
        *,
        seed: int | None = None,
        share: bool = True,
        options: ForwardOptions = PLAIN,
    ) -> torch.Tensor:
        """The losses of these rows' target tokens (else of all rows'), [K], to differentiate."""
        encoded = self.encoded if encoded is None else encoded
        rows, edits = [training_row(e) for e in encoded], self.edits(state, seed)
        rows = continued(self.model, rows)
        batch = pack(rows, [edits], device=self.model.device, share=share)
        return token_losses(self.model, batch, encoded, options=options)

    @cached_property
    def draws(self) -> bool:
        """Whether its edits in training are random, as those with dropout are."""
        one, other = (self.logits(self.rows(), self.edits(self.moved, s)) for s in (1, 2))
        return not all(map(torch.equal, one, other))


def leaves(state: State) -> State:
    """A copy whose tensors are leaves that want gradients."""
    tensors = {n: t.detach().clone().requires_grad_() for n, t in state.tensors.items()}
    return State(tensors, state.text)


def gradients(state: State) -> dict[str, torch.Tensor]:
    """The gradients that a state's tensors have got."""
    return {n: t.grad for n, t in state.tensors.items() if t.grad is not None}
