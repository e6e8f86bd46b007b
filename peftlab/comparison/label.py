"""Methods with settings, guests included: as one types them, and as a folder can be called."""

from __future__ import annotations

import re

from peftlab.guests import Guest
from peftlab.methods import Method, parse_one, specs


def parse(text: str) -> tuple[Method | Guest, ...]:
    """The methods of a list, guests included: `lora:rank=4,peft:vera,r=8`.

    Raises:
        InputError: an unknown method (with the nearest name), setting or value.
    """
    return tuple(
        Guest.parse(spec) if spec.startswith("peft:") else parse_one(spec) for spec in specs(text)
    )


def label_on(method: Method | Guest, dtype: str) -> str:
    """The method's label, with the base's number format where that is not fp32: `lora@nf4`."""
    return method.label + _on(dtype)


def folder_name(method: Method | Guest, dtype: str) -> str:
    """What folders of its runs begin with; a default that changes does not change it."""
    return slug(method.folder_label + _on(dtype))


def _on(dtype: str) -> str:
    return "" if dtype == "fp32" else f"@{dtype}"


def slug(text: str, longest: int = 48) -> str:
    """A text as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", text).strip("-.")[:longest]
