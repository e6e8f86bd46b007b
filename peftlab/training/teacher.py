"""An adaptation as a teacher: its distribution at the target's tokens, row by row.

Teacher and student are two owners over one base. Their rows may differ in template and length, so
what is matched is the target: both predict the same ids, the student's, its end included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from peftlab.edits import Edits, fingerprint
from peftlab.errors import InputError
from peftlab.frozen.batch import Batch
from peftlab.frozen.forward import PLAIN, ForwardOptions
from peftlab.frozen.packing import pack
from peftlab.loss import divergences, rows_of_experts
from peftlab.pasts import continued
from peftlab.tasks import Encoded, Example, Template
from peftlab.token_limits import max_row_tokens, token_chunks
from peftlab.training.rows import alike
from peftlab.trunk import TrunkStore

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_TOKENS = 4096  # of both sides' rows in one forward without gradients


@dataclass(frozen=True)
class Teacher:
    """An adaptation that another one learns from; nothing of it moves.

    Attributes:
        max_length: of its rows, as in training.
        store: of sources, for one that begins at the cue.
        cut: rows that lost more of their source to its prompt than to their student's.
    """

    model: FrozenLM
    adaptation: Adaptation
    max_length: int | None = None
    store: TrunkStore | None = None
    cut: set[Hashable] = field(default_factory=set)

    @cached_property
    def edits(self) -> Edits:
        """What it changes, detached. Raises `InputError` for one of another base."""
        return self.adaptation.edits(self.model)

    @property
    def template(self) -> Template:
        """In which it reads."""
        return self.edits.template or self.adaptation.template

    @property
    def max_row_tokens(self) -> int:
        """The most tokens of its rows, targets included."""
        taken = self.edits.prefix_length
        return max_row_tokens(self.model.shape.context, self.max_length, taken)

    @cached_property
    def identity(self) -> str:
        """Names all that decides what it teaches."""
        told = (fingerprint(self.edits), self.template.identity(), self.edits.begin)
        words = f"{told} {self.max_length} {self.model.fingerprint}"
        return hashlib.sha256(words.encode()).hexdigest()

    def rows(self, students: Sequence[Encoded], examples: Sequence[Example]) -> list[Encoded]:
        """Its rows of students' examples, with the students' targets.

        Raises:
            InputError: a student's row trains on several replies, or holds rivals.
        """
        return [self._row(one, example) for one, example in zip(students, examples, strict=True)]

    def _row(self, student: Encoded, example: Example) -> Encoded:
        if len(student.spans) != 1 or student.rivals:
            raise InputError("a teacher teaches one reply a row, and this row trains on several")
        target = student.trained
        room = self.max_row_tokens - len(target)
        prompt = self.template.encode(self.model.tokenizer, example, None, room)
        if prompt.dropped > student.dropped:
            self.cut.add(example.asked)
        return prompt.followed_by(target)

    def batch(self, rows: Sequence[Encoded]) -> Batch:
        """Its rows, packed under its edits."""
        return self._packed(self.edits, rows)

    def _packed(self, edits: Edits, rows: Sequence[Encoded]) -> Batch:
        given = continued(self.model, rows_of_experts(edits, rows), self.store)
        return pack(given, [*edits.each, Edits()], device=self.model.device)

    def divergences_of(
        self, student: Batch, rows: Sequence[Encoded], options: ForwardOptions = PLAIN
    ) -> torch.Tensor:
        """A student's batch held against its own rows, see `loss.divergences`."""
        return divergences(self.model, student, self.batch(rows), options, self.edits.shares)

    @torch.no_grad()
    def divergences(
        self, edits: Edits, students: Sequence[Encoded], examples: Sequence[Example]
    ) -> tuple[list[float], list[int]]:
        """Each row's summed divergence of edits from what it teaches, in nats, and its tokens."""
        taught = self.rows(students, examples)
        shared = alike(taught)  # is run once a batch
        pairs = list(zip(students, taught, strict=True))
        sizes = [
            len(own.ids) + sum(len(row.ids) for row in its.rows) - shared for own, its in pairs
        ]
        sums: list[float] = []
        for chunk in token_chunks(pairs, sizes, _TOKENS):
            own, its = zip(*chunk, strict=True)
            found = self.divergences_of(self._packed(edits, own), its).double()
            sums += [float(each.sum()) for each in found.split([row.targets for row in own])]
        return sums, [row.targets for row in students]
