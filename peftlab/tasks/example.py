"""One row of a task, as text and as token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from peftlab.errors import InputError

Begin = Literal["row", "cue"]
"""Where in a row a change begins: at its first token, or at the cue, after the source."""


@dataclass(frozen=True)
class Example:
    """A source with one or many accepted targets.

    `fields` holds the other columns that a template may name; they take part in equality but not
    in the hash, so that examples can be members of sets.
    """

    source: str
    targets: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values from which `from_dict` makes this example again."""
        return {
            "source": self.source,
            "targets": list(self.targets),
            "fields": dict(self.fields),
        }

    @classmethod
    def from_dict(cls, values: Any) -> Example:
        """Return the example that `to_dict` wrote. Raises `InputError` for anything else."""
        known: dict[str, Any] = values if isinstance(values, dict) else {}
        source: Any = known.get("source")
        targets: Any = known.get("targets")
        fields: Any = known.get("fields", {})
        lists = isinstance(targets, list | tuple) and isinstance(fields, dict)
        texts = [source, *targets, *fields.values()] if lists else [None]
        if not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"an example is stored as {values!r:.100}; a source, targets and fields, all of "
                "them texts, were expected"
            )
        return cls(source, tuple(targets), dict(fields))

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
    begin: index of the first token that edits change, where they begin at the cue; None: they
        begin nowhere, and the row is the bare base's.
    """

    ids: tuple[int, ...]
    target_start: int
    dropped: int
    begin: int | None = 0


class BeginsNowhere(UserWarning):
    """Edits that begin at certain tokens meet prompts without these."""


def nowhere_begun(rows: int, of: int) -> str:
    """What such a warning says."""
    return (
        f"{rows} of {of} prompts lack the tokens at which this aLoRA begins, so the bare base "
        "answers them: give the template that it was trained with"
    )


def start_of(row: Encoded, tokens: int) -> Encoded:
    """The first tokens of a prompt; at least one of them is edited."""
    ids = row.ids[:tokens]
    begin = None if row.begin is None else min(row.begin, len(ids) - 1)
    return Encoded(ids, len(ids), row.dropped, begin)
