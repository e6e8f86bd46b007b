"""Metrics of replies that are JSON: whether they are, and which of their fields are right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from peftlab.metrics.means import MeanOverExamples, column
from peftlab.metrics.registry import Rows

OF_JSON = ("json_fields", "json_valid")
"""What replies that follow a JSON Schema are scored by, unless other metrics are asked for."""

_MISSING = object()


class JsonValid(MeanOverExamples):
    """Share of predictions that are JSON.

    A whole reply that was decoded under a schema is of that schema; one that was cut off is none.
    """

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """1 where the prediction is JSON, else 0."""
        return column(float(_parsed(text) is not _MISSING) for text in predictions)


class JsonFields(MeanOverExamples):
    """Share of an example's fields that the prediction has as its reference has them.

    A field is what stands at a path, as `order.items[0].name`; those of both sides count, so what
    is left out and what is added cost alike. Of several references the closest counts.
    """

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """The share of each example; 0 of what is no JSON, unless a reference is the same text."""
        pairs = zip(predictions, references, strict=True)
        return column(max(_alike(text, one) for one in targets) for text, targets in pairs)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_none)
    except (ValueError, RecursionError):
        return _MISSING


def _none(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _alike(text: str, target: str) -> float:
    found, wanted = _parsed(text), _parsed(target)
    if found is _MISSING or wanted is _MISSING:
        return float(text.strip() == target.strip())
    own, other = dict(_fields(found)), dict(_fields(wanted))
    equal = sum(_equal(own.get(path, _MISSING), value) for path, value in other.items())
    return equal / len(own.keys() | other.keys())


def _fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every leaf, and what is empty, by its path."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from _fields(one, (*path, key))
    elif isinstance(value, list) and value:
        for place, one in enumerate(value):
            yield from _fields(one, (*path, place))
    else:
        yield path, value


def _equal(one: Any, other: Any) -> bool:
    """As JSON has it: 1 and 1.0 are equal, 1 and true are not."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
