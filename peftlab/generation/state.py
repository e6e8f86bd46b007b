"""A row on its way: whose it is, what it has read and what it has produced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from peftlab.frozen.batch import Past
from peftlab.generation.owner import Owner


@dataclass(eq=False)
class DecodingState:
    """A row that decodes.

    Attributes:
        prompt: without the owner's lead. tokens: what it has produced.
        slot: its place in the cache. past: how many positions it has there, its prefix included.
    """

    owner: Owner
    prompt: Sequence[int]
    tokens: list[int] = field(default_factory=list)
    slot: int = -1
    past: int = 0

    @property
    def length(self) -> int:
        """Positions that its prompt takes in the cache."""
        return self.owner.prefix_length + len(self.prompt)

    @property
    def continued(self) -> Past:
        """What its next tokens go on from."""
        return Past(self.slot, self.past)
