"""Numbers and lists as people write them."""

from __future__ import annotations

from collections.abc import Sequence


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
