"""One row of a task, as text and as token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """A source with one or many accepted targets.

    `fields` holds the other columns that a template may name; they take part in equality but not
    in the hash, so that examples can be members of sets.
    """

    source: str
    targets: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)

    def excerpt(self, length: int = 60) -> str:
        """Return the beginning of the source on one line, to name this row in a message."""
        text = " ".join(self.source.split())
        return text if len(text) <= length else text[: length - 1] + "…"


@dataclass(frozen=True)
class Encoded:
    """A row of token ids.

    ids: the whole row; pseudo token j of a soft prompt is the id -(j + 1).
    target_start: index of the first trained token; `len(ids)` for a row without its target.
    dropped: tokens of the source that truncation has cut.
    """

    ids: tuple[int, ...]
    target_start: int
    dropped: int
