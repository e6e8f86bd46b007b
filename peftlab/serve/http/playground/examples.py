"""A source that an adapter has learnt to answer, from what lies beside its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peftlab.compare import folders

_LONGEST = 100_000  # characters; a longer one is no help to a person
_MOST_BYTES = 1 << 22  # of a file's first line, and of a description


def example(adapter: Path | None) -> str | None:
    """The first test example of the run that made it, else the first of its own exemplars.

    Args:
        adapter: its folder; None for one that was never on a disk.
    """
    if adapter is None:
        return None
    run = _first_line(adapter.parent / folders.PREDICTIONS)
    described = _json(adapter / "adaptation.json")
    exemplars = _at(described, "text", "exemplars") or _at(described, "template", "exemplars") or []
    found = [
        _at(one, "source") for one in (run, *(exemplars if isinstance(exemplars, list) else []))
    ]
    texts = [text for text in found if isinstance(text, str) and 0 < len(text) <= _LONGEST]
    return texts[0] if texts else None


def _first_line(path: Path) -> Any:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return _parsed(file.readline(_MOST_BYTES))


def _json(path: Path) -> Any:
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return None
    return _parsed(path.read_bytes())


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:  # an example is a help, and its absence no error
        return None


def _at(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
