"""An adaptation as a teacher: its distribution at the target's tokens, row by row.

Teacher and student are two owners over one base. Their rows may differ in template and length, so
what is matched is the target: both predict the same ids, the student's, its end included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from peftlab.edits import Edits, fingerprint
from peftlab.errors import InputError
from peftlab.frozen.batch import Batch
from peftlab.frozen.packing import Row, pack
from peftlab.loss import divergences, training_row
from peftlab.pasts import continued
from peftlab.tasks import Encoded, Example, Template
from peftlab.token_limits import max_row_tokens, token_chunks

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation
    from peftlab.trunk import TrunkStore

_TOKENS = 2048  # of students' rows in one forward without gradients


@dataclass(frozen=True)
class Teacher:
    """An adaptation that another one learns from; nothing of it moves.

    Attributes:
        max_length: of its rows, as in training.
        cut: the sources of which it has not seen all, since its prompt left no room.
    """

    model: FrozenLM
    adaptation: Adaptation
    max_length: int | None = None
    cut: set[str] = field(default_factory=set)

    @cached_property
    def edits(self) -> Edits:
        """What it changes, detached. Raises `InputError` for one of another base."""
        return self.adaptation.edits(self.model)

    @property
    def template(self) -> Template:
        """In which it reads."""
        return self.edits.template or self.adaptation.template

    @cached_property
    def identity(self) -> str:
        """Names all that decides what it teaches."""
        told = (fingerprint(self.edits), self.template.identity(), self.edits.begin)
        words = f"{told} {self.max_length} {self.model.fingerprint}"
        return hashlib.sha256(words.encode()).hexdigest()

    def batch(
        self,
        students: Sequence[Encoded],
        examples: Sequence[Example],
        store: TrunkStore | None = None,
    ) -> Batch:
        """Its rows of students' examples, with the students' targets.

        Raises:
            InputError: a student's row trains on several replies, or holds rivals.
        """
        rows = [self._row(one, example) for one, example in zip(students, examples, strict=True)]
        given = continued(self.model, [_wanted(row) for row in rows], store)
        return pack(given, [self.edits, Edits()], device=self.model.device)

    def _row(self, student: Encoded, example: Example) -> Encoded:
        if len(student.spans) != 1 or student.rivals:
            raise InputError(
                "a teacher teaches one reply a row: take -o loss=last, and -o choice_loss=right"
            )
        target = student.trained
        most = max_row_tokens(self.model.shape.context, self.max_length, self.edits.prefix_length)
        prompt = self.template.encode(self.model.tokenizer, example, None, most - len(target))
        if prompt.dropped:
            self.cut.add(example.source)
        ids = (*prompt.ids, *target)
        return Encoded.trained_from(ids, len(prompt.ids), prompt.dropped, prompt.begin)

    @torch.no_grad()
    def divergences(
        self,
        edits: Edits,
        students: Sequence[Encoded],
        examples: Sequence[Example],
        store: TrunkStore | None = None,
    ) -> tuple[list[float], list[int]]:
        """Each row's summed divergence of edits from what it teaches, in nats, and its tokens."""
        rows, sums = list(students), [0.0] * len(students)
        for chunk in token_chunks(range(len(rows)), [len(row.ids) for row in rows], _TOKENS):
            own = [rows[i] for i in chunk]
            given = continued(self.model, [_wanted(row) for row in own], store)
            batch = pack(given, [edits, Edits()], device=self.model.device)
            taught = self.batch(own, [examples[i] for i in chunk], store)
            found = divergences(self.model, batch, taught).double()
            for i, each in zip(chunk, found.split([row.targets for row in own]), strict=True):
                sums[i] = float(each.sum())
        return sums, [row.targets for row in rows]


def _wanted(row: Encoded) -> Row:
    """As it is packed beside the bare base, whose it is where its edits begin nowhere."""
    return training_row(row, int(row.begin is None))
