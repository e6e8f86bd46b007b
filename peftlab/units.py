"""Numbers with units as people read them. Sizes go by powers of 1024, as memory has them."""

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


def loss(value: float) -> str:
    """Nats per token: 0.52, 0.034."""
    return f"{value:.2f}" if value >= 0.095 else f"{value:.2g}"


def amount(value: float) -> str:
    """6.5, 768, 3,840, 786 thousand, 124.4 million."""
    if value < 9_999.5:
        return f"{value:,.0f}" if value >= 99.5 or value == round(value) else f"{value:.1f}"
    for unit, name in ((1e3, "thousand"), (1e6, "million"), (1e9, "billion")):
        if value < unit * 999.5 or unit == 1e9:
            return f"{three_digits(value / unit)} {name}"
    raise AssertionError("the last unit takes all")


def duration(seconds: float) -> str:
    """3.2 ms, 4.5 s, 42 s, 3 min 20 s, 1 h 5 min."""
    if seconds < 0.9995:
        return f"{three_digits(seconds * 1e3)} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
