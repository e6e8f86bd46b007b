"""What is known of an adapter without loading it: from its files and those of the run beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab.bases.shapes import ModelShape
from peftlab.errors import PeftlabError
from peftlab.methods import build
from peftlab.records import folders, record

OWN, PEFT = "adaptation.json", "adapter_config.json"
_MOST_BYTES = 16 << 20  # of a file that describes, and of a line
_LONGEST = 100_000  # characters of an example; a longer one is no help to a person


@dataclass(frozen=True)
class Described:
    """Of one adapter; None where it is not known.

    Attributes:
        method: its name. task: what it was trained for. trainable: numbers that were trained.
        bytes: of its tensors' file.
    """

    method: str | None = None
    task: str | None = None
    trainable: int | None = None
    bytes: int | None = None


class Descriptions:
    """Of the adapters of one base, each read again only when its folder's description changes."""

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape
        self._known: dict[Path, tuple[int, Described]] = {}

    def of(self, folder: Path | None) -> Described:
        """What an adapter's folder tells; a damaged one tells nothing here and why when loaded."""
        if folder is None:
            return Described()
        own = folder / OWN
        path = own if own.is_file() else folder / PEFT
        try:
            stamp = path.stat().st_mtime_ns
            known = self._known.get(folder)
            if known is None or known[0] != stamp:
                known = self._known[folder] = stamp, self._read(path, folder)
        except (OSError, ValueError):
            return Described()
        return known[1]

    def _read(self, path: Path, folder: Path) -> Described:
        described, run = _object(path), _object(folder.parent / record.NAME)
        method = _at(described, "method") or str(_at(described, "peft_type") or "").lower() or None
        trained = _at(run, "parameters", "trainable")
        return Described(
            method if isinstance(method, str) else None,
            _text(_at(run, "task", "name")),
            trained if isinstance(trained, int) else self._count(described),
            sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        )

    def _count(self, described: Mapping[str, Any]) -> int | None:
        if "settings" not in described:
            return None
        try:
            return build(described["method"], described["settings"]).count(self._shape).trainable
        except (PeftlabError, TypeError, KeyError, AttributeError):
            return None


def example(folder: Path | None) -> str | None:
    """A source that an adapter has learnt to answer.

    The first test example of the run that made it, else the first of its own exemplars.
    """
    if folder is None:
        return None
    try:
        run, own = _first_line(folder.parent / folders.PREDICTIONS), _object(folder / OWN)
    except (OSError, ValueError):
        return None
    pools = _at(own, "text", "exemplars"), _at(own, "template", "exemplars")
    shown = [one for pool in pools if isinstance(pool, list) for one in pool]
    texts = [_at(one, "source") for one in (run, *shown)]
    return next((it for it in texts if isinstance(it, str) and 0 < len(it) <= _LONGEST), None)


def _first_line(path: Path) -> Any:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return json.loads(file.readline(_MOST_BYTES))


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return {}
    value = json.loads(path.read_bytes())
    return value if isinstance(value, dict) else {}


def _at(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str | None:
    return Path(value).name if isinstance(value, str) and value else None
