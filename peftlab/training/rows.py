"""Rows of a split as token ids, encoded when first needed, in an order that a seed decides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from peftlab.errors import InputError
from peftlab.tasks import Encoded, Example, Template
from peftlab.tasks.choices import Choices
from peftlab.tasks.rows import Pairs
from peftlab.tasks.tokens import Tokenizer, traits
from peftlab.training.token_file import Kept, TokenFile, digest_of

_IN_MEMORY = 4096  # rows of a split; of more, tokens lie in files
_FORMAT = 1  # of what stands in them, counted up where rows come to other tokens than before


class Rows(Sequence[Encoded]):
    """Every (example, target) pair as token ids; counts what truncation has cut.

    Args:
        kept: where the tokens of rows that are too many for memory lie; None: they are encoded anew
            each time that they are needed.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Example, str]],
        template: Template,
        tokenizer: Tokenizer,
        max_tokens: int,
        choices: Choices | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._pairs, self._template, self._tokenizer = pairs, template, tokenizer
        self._max_tokens, self._choices, self._place = max_tokens, choices, kept
        self._encoded: dict[int, Encoded] = {}
        self._cut: set[int] = set()
        self.lost = 0  # replies that would be trained on, had the rows used so far room for them

    @property
    def are_many(self) -> bool:
        """Whether they are too many for memory."""
        return len(self) > _IN_MEMORY

    def under(self, template: Template) -> Rows:
        """The same examples in another template; cut rows count in both."""
        other = Rows(self._pairs, template, self._tokenizer, self._max_tokens, self._choices)
        other._cut = self._cut
        return other

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]
        if not 0 <= index < len(self._pairs):
            raise IndexError(index)
        if index in self._encoded:
            return self._encoded[index]
        example, target = self._pairs[index]
        row = self._row(index, example, target)
        if not self.are_many:
            self._encoded[index] = row
        if row.dropped and index not in self._cut:
            self._cut.add(index)
            self.lost += sum(turn.trained for turn in example.turns) + 1 - len(row.spans)
        return row

    def _row(self, index: int, example: Example, target: str) -> Encoded:
        if self._kept is None:
            return self._encode(example, target)
        digest = digest_of(example, target)
        row = self._kept.get(index, digest)
        if row is None:
            row = self._encode(example, target)
            self._kept.put(index, digest, row)
        return row

    def _encode(self, example: Example, target: str) -> Encoded:
        others = self._others(example) if self.contrasts else []
        longest = max(map(len, others), default=0)
        own = len(self._template.target_ids(self._tokenizer, target, example)) if others else 0
        room = self._max_tokens - max(0, longest - own)  # every option has to fit
        row = self._template.encode(self._tokenizer, example, target, room)
        return row.against(others) if others else row

    @cached_property
    def _kept(self) -> TokenFile | None:
        """Where tokens of many rows are kept, named after all that they hang on."""
        if self._place is None or not self.are_many:
            return None
        tokenizer = self._tokenizer
        ends = (tokenizer.eos_token_id, *self._template.ends(tokenizer))
        known = (_FORMAT, self._template.identity(), self._max_tokens, str(self._choices), ends)
        told = f"{json.dumps(known, sort_keys=True)} {traits(tokenizer)} "
        told += tokenizer.backend_tokenizer.to_str()
        return self._place.file(hashlib.sha256(told.encode()).hexdigest()[:32])

    def example(self, index: int) -> Example:
        """Whose row it is."""
        return self._pairs[index][0]

    @property
    def contrasts(self) -> bool:
        """Whether rows are held against the options that are not theirs."""
        return self._choices is not None and self._choices.loss == "contrast"

    def _others(self, example: Example) -> list[tuple[int, ...]]:
        assert self._choices is not None
        wrong = [one for one in self._choices.of(example) if one not in example.targets]
        return [tuple(ids) for ids in self._template.option_ids(self._tokenizer, example, wrong)]

    @property
    def sources(self) -> int:
        """How many sources the rows have; one has a row for each of its targets."""
        if isinstance(self._pairs, Pairs):
            return self._pairs.sources
        return len({example.asked for example, _ in self._pairs})

    @property
    def cut(self) -> set[int]:
        """The rows used so far that lost source tokens."""
        return self._cut


def alike(rows: Sequence[Encoded]) -> int:
    """How many first tokens all rows have in common."""
    columns = enumerate(zip(*(row.ids for row in rows), strict=False))
    shortest = min(len(row.ids) for row in rows)
    return next((at for at, column in columns if len(set(column)) > 1), shortest)


@dataclass(frozen=True)
class Piece:
    """Some rows of a step, or all of them.

    Attributes:
        indices: of the rows in their split. places: in the step.
        alike: how many first tokens all rows of the step have in common.
    """

    rows: list[Encoded]
    indices: list[int]
    places: list[int]
    alike: int

    @classmethod
    def of(cls, rows: Rows, indices: list[int]) -> Piece:
        """A whole step."""
        own = [rows[i] for i in indices]
        return cls(own, indices, list(range(len(own))), alike(own))

    def part(self, places: Sequence[int]) -> Piece:
        """The rows at some places of the step."""
        rows, indices = [self.rows[i] for i in places], [self.indices[i] for i in places]
        return Piece(rows, indices, list(places), self.alike)


class Order:
    """Which rows each step takes: epochs of permutations, a pure function of seed and step."""

    def __init__(self, rows: int, rows_a_step: int, seed: int) -> None:
        if rows == 0:
            raise InputError("the training split is empty")
        self._rows, self._step, self._seed = rows, rows_a_step, seed
        self._epoch: tuple[int, torch.Tensor] = (-1, torch.empty(0))

    def step(self, step: int) -> list[int]:
        """The rows of step 0, 1, …"""
        start = step * self._step
        return [self._at(i) for i in range(start, start + self._step)]

    def _at(self, position: int) -> int:
        epoch, index = divmod(position, self._rows)
        if self._epoch[0] != epoch:
            rng = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            self._epoch = (epoch, torch.randperm(self._rows, generator=rng))
        return int(self._epoch[1][index])
