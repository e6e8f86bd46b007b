"""Numbers and lists as people write them."""

from __future__ import annotations

from collections.abc import Sequence

from peftlab.metrics import metric_title
from peftlab.units import three_digits


def metric_name(name: str) -> str:
    """ "rougeL-stem" → "ROUGE-L-stem"."""
    return metric_title(name)


def quality(value: float, like: float) -> str:
    """A score, with the digits that suit the size of the score `like`."""
    digits = 1 if abs(like) > 2 else 3
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # no −0.000


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


def percent(share: float) -> str:
    """0.0213 → "2.1 %"; 0.97 → "97 %"; 0.00002 → "0.002 %"."""
    value = share * 100
    if value >= 9.95:
        return f"{value:,.0f} %"
    return f"{float(f'{value:.2g}'):g} %" if value >= 1e-3 or value == 0 else "under 0.001 %"


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def several(names: Sequence[str]) -> str:
    """ "a, b and c", "a and 3 others"."""
    return listed(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} others"


def counted(number: int, thing: str) -> str:
    """ "1 seed", "3 seeds", "1,300 test examples"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
