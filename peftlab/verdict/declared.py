"""Pairs that are compared on purpose, and not because both happen to be in one table.

That a method which begins at the cue is held against the same method on whole rows is decided
before anything is measured. Such pairs are corrected for their own number alone: among all pairs of
a table with everything twice, none of them could be decided.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_CUE = re.compile(r"(:)begin=cue,|[:,]begin=cue(?=[,+@]|$)")


def on_whole_rows(label: str) -> str | None:
    """The label of the same method where it changes whole rows; None of one that does."""
    other = _CUE.sub(r"\1", label)
    return None if other == label else other


def declared_pairs(labels: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Each method that begins at the cue, with the same one on whole rows, where both are there."""
    pairs = ((label, on_whole_rows(label)) for label in labels)
    return tuple((label, other) for label, other in pairs if other is not None and other in labels)
