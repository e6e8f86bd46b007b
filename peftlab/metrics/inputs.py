"""Checks what goes into every metric, once, before any of them runs.

An empty string is a legal prediction or reference (models do generate nothing); what it scores is
each official scorer's own business. Everything else that is not text is an error here.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

from peftlab.metrics.errors import MetricInputError

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def ascii_lower(text: str) -> str:
    """Lower-case A–Z and nothing else, as mteval-v13a.pl does ("tr/A-Z/a-z/")."""
    return text.translate(_ASCII_LOWER)


def check_inputs(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise `MetricInputError` unless these are N ≥ 1 strings and N non-empty lists of strings."""
    if isinstance(predictions, str) or isinstance(references, str):
        raise MetricInputError(
            "predictions and references must be sequences with one entry per example, got one"
            " string; put it into a list"
        )
    if len(predictions) != len(references):
        raise MetricInputError(
            f"{len(predictions)} predictions but {len(references)} lists of references; there must"
            " be one list of references for each prediction"
        )
    if not len(predictions):
        raise MetricInputError("there is nothing to score: no predictions and no references")
    for row, (prediction, targets) in enumerate(zip(predictions, references, strict=True)):
        _check_text(prediction, f"prediction {row}")
        _check_targets(targets, row)


def _check_targets(targets: Sequence[str], row: int) -> None:
    if isinstance(targets, str):
        raise MetricInputError(
            f"the references of example {row} are one string, expected a list of strings; write"
            f" [{targets[:40]!r}] for a single reference"
        )
    if not isinstance(targets, Sequence):
        raise MetricInputError(
            f"the references of example {row} are {_describe(targets)}, expected a list of strings"
        )
    if not targets:
        raise MetricInputError(
            f"example {row} has no reference; give at least one, or leave the example out"
        )
    for position, target in enumerate(targets):
        _check_text(target, f"reference {position} of example {row}")


def _check_text(value: object, what: str) -> None:
    if not isinstance(value, str):
        raise MetricInputError(
            f"{what} is {_describe(value)}, expected a string; a column of numbers or with missing"
            " values must be turned into text first"
        )


def _describe(value: object) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "NaN (a missing value)"
    if value is None:
        return "None (a missing value)"
    return f"{value!r:.60} of type {type(value).__name__}"
