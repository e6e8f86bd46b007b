"""The examples of one step of a search: its candidates are scored as owners of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from peftlab.evaluation import AdaptedLM, Evaluation, evaluate
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.packing import pack
from peftlab.loss import token_losses, training_row
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import Answer, Candidate, Method, State
from peftlab.metrics import main_metric, metric_spec
from peftlab.processes import ALONE, Processes
from peftlab.token_limits import max_row_tokens, token_chunks
from peftlab.training.authors import write
from peftlab.training.config import TrainConfig
from peftlab.training.rows import Rows

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Example, Task, Template

# Candidates are packed up to this many tokens, or else one at a time.
_TOKENS_A_BATCH = 8192
_ANSWERED = 16  # replies that are written together


@dataclass
class Examples:
    """What `Method.update` is given (see the protocol there).

    Attributes:
        method: that searches. pairs: the training split. indices: the examples of this step.
        processes: who candidates, and rows of a gradient, are divided among.
        tokens: packed tokens that have gone through the base so far in this process, and those that
            an author has read and written. forward_tokens: the same, those of a backward pass once
            more.
    """

    model: FrozenLM
    method: Method
    task: Task
    pairs: Rows
    indices: Sequence[int]
    config: TrainConfig
    rng: torch.Generator
    processes: Processes = ALONE
    tokens: int = 0
    forward_tokens: int = 0

    @property
    def template(self) -> Template:
        """The task's."""
        return self.task.template

    @property
    def room(self) -> int:
        """Tokens that a prompt may have, beside the longest reply."""
        most = max_row_tokens(self.model.shape.context, self.config.max_length)
        return most - self.task.max_new_tokens

    def answers(self, state: State, examples: Sequence[Example]) -> list[Answer]:
        """What the model answers under a state of the method, as in evaluation, and the scores."""
        base = base_of(self.model)
        adapted = AdaptedLM(self.model, Adaptation(self.method, state, self.template, base))
        # The rows are the task's own by now, whatever an instruction leaves them of the context.
        asked = replace(self.task, validation=list(examples), long="cut", fitted=True)
        metric = main_metric(asked.metrics)
        with torch.autocast(self.model.device.type, enabled=False):
            found = evaluate(
                adapted,
                asked,
                "validation",
                metrics=[metric],
                batch_size=_ANSWERED,
                max_length=self.config.max_length,
                seed=self.config.seed,
            )
        self._count(self._tokens(found))
        sign = 1 if metric_spec(metric).higher_is_better else -1
        scores = found.scores.per_example[metric]
        return [
            Answer(reply.text, sign * score)
            for reply, score in zip(found.replies, scores, strict=True)
        ]

    def written(self, asked: Sequence[str], author: str) -> list[tuple[str, int]]:
        """What a language model writes to each request; its tokens count as read by this one."""
        seed = int(torch.randint(2**31, (1,), generator=self.rng))
        with torch.autocast(self.model.device.type, enabled=False):
            written = [(one.text, one.tokens) for one in write(self.model, author, asked, seed)]
        self._count(sum(tokens for _, tokens in written))
        return written

    def _tokens(self, found: Evaluation) -> int:
        """Tokens of prompts, and of what was written or weighed after them."""
        tokenizer, beams = self.model.tokenizer, self.task.decoding.beams
        weighed = [option for one in found.options for option in one]
        options = tokenizer(weighed, add_special_tokens=False)["input_ids"] if weighed else []
        written = 0 if weighed else beams * sum(len(one.tokens) for one in found.replies)
        prompts = sum(one.prompt_tokens for one in found.replies)
        return prompts + written + sum(map(len, options))

    def _count(self, tokens: int) -> None:
        self.tokens += tokens
        self.forward_tokens += tokens

    def encode(self, template: Template, count: int | None = None) -> list[Encoded]:
        """The rows of all examples, or of the first `count`, in a template."""
        rows = self.pairs.under(template)
        return [rows[i] for i in self.indices[:count]]

    @torch.no_grad()
    def losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """Every candidate's loss per target token; all of them are owners of one batch."""

        def share_of(process: int) -> list[list[int]]:
            chosen = range(process, len(candidates), self.processes.count)
            sizes = [sum(len(row.ids) for row in candidates[i].rows) for i in chosen]
            return list(token_chunks(chosen, sizes, _TOKENS_A_BATCH))

        losses = torch.zeros(len(candidates), dtype=torch.float64)
        for chunk, own in self.processes.shares(share_of, even=self.model.is_sharded):
            sums = self._sums([candidates[i] for i in chunk])
            for i, loss in zip(chunk if own else (), sums, strict=False):
                losses[i] = float(loss) / _targets(candidates[i].rows)
        return self.processes.sum([losses])[0].tolist()

    def gradient(self, candidate: Candidate) -> torch.Tensor:
        """The gradient [P, D] of the candidate's loss per target token by `edits.embeddings`."""
        assert candidate.edits.embeddings is not None
        vectors = candidate.edits.embeddings.detach().requires_grad_()
        edits = replace(candidate.edits, embeddings=vectors)
        gradient, targets = torch.zeros_like(vectors), _targets(candidate.rows)

        def share_of(process: int) -> list[Sequence[Encoded]]:
            rows, size = candidate.rows[process :: self.processes.count], self.config.batch_size
            return [rows[at : at + size] for at in range(0, len(rows), size)]

        for rows, own in self.processes.shares(share_of, even=self.model.is_sharded):
            before = self.tokens
            share = self._sums([Candidate(edits, rows)])[0] / targets
            gradient += torch.autograd.grad(share, vectors)[0] * own
            self.forward_tokens += self.tokens - before
        return self.processes.sum([gradient])[0]

    def _sums(self, candidates: Sequence[Candidate]) -> list[torch.Tensor]:
        """Each candidate's summed loss."""
        encoded = [row for candidate in candidates for row in candidate.rows]
        rows = [
            training_row(row, owner)
            for owner, candidate in enumerate(candidates)
            for row in candidate.rows
        ]
        batch = pack(
            rows,
            [candidate.edits for candidate in candidates],
            device=self.model.device,
            share=self.config.share,
        )
        self._count(len(batch.ids))
        options = ForwardOptions(checkpoint=self.config.recompute, fast=self.config.fast)
        losses = token_losses(self.model, batch, encoded, options=options)
        return [losses[start:stop].sum() for start, stop in batch.kept_spans.values()]


def _targets(rows: Sequence[Encoded]) -> int:
    return sum(row.targets for row in rows)
