"""A row on its way: whose it is, what it has read and what it has produced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from peftlab.edits import Edits
from peftlab.frozen.batch import Past
from peftlab.generation.owner import Owner, bare
from peftlab.tasks import Encoded

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

_BASE = Edits()


@dataclass(eq=False)
class DecodingState:
    """A row that decodes.

    Attributes:
        prompt: without the owner's lead. tokens: what it has produced.
        begin: how many of the prompt's first tokens are the bare base's.
        slot: its place in the cache. past: how many positions it has there, its prefix included.
    """

    owner: Owner
    prompt: Sequence[int]
    tokens: list[int] = field(default_factory=list)
    slot: int = -1
    past: int = 0
    begin: int = 0

    @classmethod
    def of(cls, owner: Owner, prompt: Encoded) -> DecodingState:
        """A row that has read nothing yet."""
        at_cue = owner.edits.begin == "cue"
        begin = prompt.begin if at_cue and prompt.begin is not None else 0
        return cls(owner, prompt.ids[len(owner.lead) :], begin=begin)

    @property
    def is_before_cue(self) -> bool:
        """Whether what it reads next is the bare base's."""
        return self.past < self.begin

    @property
    def edits(self) -> Edits:
        """What changes the tokens that it reads next."""
        return _BASE if self.is_before_cue else self.owner.edits

    @property
    def kind(self) -> int:
        """The same for rows whose edits change the same places."""
        return 0 if self.is_before_cue else self.owner.kind

    @property
    def length(self) -> int:
        """Positions that its prompt takes in the cache."""
        return self.owner.prefix_length + len(self.prompt)

    @property
    def continued(self) -> Past:
        """What its next tokens go on from."""
        return Past(self.slot, self.past)


def rows_of(model: FrozenLM, owners: Sequence[Owner], prompt: Encoded) -> tuple[DecodingState, ...]:
    """A prompt's rows, one an expert; what they produce is one list.

    The bare base's, of one in which edits begin nowhere.
    """
    made: list[int] = []
    return tuple(
        replace(DecodingState.of(owner if row.begin is not None else bare(model), row), tokens=made)
        for owner, row in zip(owners, prompt.rows, strict=True)
    )
