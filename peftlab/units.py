"""Sizes as people read them, in one unit everywhere: powers of 1024, as memory has them."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def size(value: float) -> str:
    """Bytes: 512 B, 15 KiB, 2.4 MiB, 1.25 GiB, 2,500 TiB."""
    if value < 1023.5:
        return f"{value:.0f} B"
    for unit in _UNITS:
        value /= 1024
        if value < 1023.5 or unit == _UNITS[-1]:
            break
    return f"{three_digits(value)} {unit}"


def three_digits(value: float) -> str:
    """Three digits, without zeros that say nothing: 15.4, 786, 1.25, 2; more where there are."""
    digits = 0 if value >= 99.5 else 1 if value >= 9.95 else 2
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
