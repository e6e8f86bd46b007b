"""Names for methods with settings: as one would type them, and as a folder can be called."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from typing import Any

from peftlab.methods import Composed, Method


def label(method: Method) -> str:
    """`lora`, or `lora:rank=4,targets=q+k` where settings differ from the method's defaults."""
    if isinstance(method, Composed):
        return "+".join(label(part) for part in method.parts)
    changed = []
    for item in fields(method):
        value = getattr(method, item.name)
        default = item.default if item.default is not MISSING else None
        if value != default:
            changed.append(f"{item.name}={_typed(value)}")
    return method.name + (":" + ",".join(changed) if changed else "")


def slug(text: str, longest: int = 48) -> str:
    """A text as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", text).strip("-.")[:longest]


def _typed(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
