"""Axes: from numbers to places in a drawing, and where the ticks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOGARITHMIC_FROM = 8.0  # an axis whose largest number is so many times its smallest
_ZERO_GAP = 34.0  # between the place of 0 on a logarithmic axis and the rest of it


@dataclass(frozen=True)
class Scale:
    """From `low` … `high` to `start` … `end`.

    zero: on a logarithmic axis, where the number 0 is drawn; None when there is no 0.
    binary: numbers are round in powers of 1024, as sizes are written.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    zero: float | None = None
    binary: bool = False

    def __call__(self, value: float) -> float:
        """Where a number is drawn."""
        if self.logarithmic and value <= 0:
            return self.start if self.zero is None else self.zero
        low, high, value = (
            (math.log(v) if self.logarithmic else v) for v in (self.low, self.high, value)
        )
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round numbers within the axis; 0 first where it has a place of its own."""
        ticks = self._powers(wanted) if self.logarithmic else self._steps(wanted)
        return [0.0, *ticks] if self.zero is not None else ticks

    def _steps(self, wanted: int) -> list[float]:
        rough = (self.high - self.low) / max(wanted - 1, 1)
        if rough <= 0:
            return [self.low]
        unit = 1024.0 ** int(math.log(max(self.high, 1.0), 1024)) if self.binary else 1.0
        power = 10.0 ** math.floor(math.log10(rough / unit)) * unit
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]

    def _powers(self, wanted: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        powers = [
            10.0 ** (i % 3) * 1024.0 ** (i // 3) if self.binary else 10.0**i
            for i in range(first, last + 1)
        ]
        for factors in ((1, 2, 5), (1, 3), (1,)):
            ticks = [f * p for p in powers for f in factors if self._holds(f * p)]
            if len(ticks) <= wanted + 1:
                return ticks
        every = math.ceil(len(ticks) / wanted)
        return ticks[::every]

    def _holds(self, value: float) -> bool:
        return self.low * 0.999 <= value <= self.high * 1.001


def fitted(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    logarithmic: bool | None = None,
    binary: bool = False,
) -> Scale:
    """An axis for these numbers, with some room at its ends.

    logarithmic: by default where numbers differ much; 0 then has its place before the others.
    """
    positive = [value for value in values if value > 0]
    if logarithmic is None:
        logarithmic = (
            bool(positive)
            and min(values) >= 0
            and max(positive) >= LOGARITHMIC_FROM * min(positive)
        )
    if not logarithmic:
        low, high = min(values), max(values)
        margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
        least = max(low - margin, 0.0) if low >= 0 else low - margin
        return Scale(least, high + margin, start, end, binary=binary)
    low, high = min(positive), max(positive)
    margin = max((high / low) ** 0.06, 1.15)
    if min(values) > 0:
        return Scale(low / margin, high * margin, start, end, True, binary=binary)
    ahead = math.copysign(_ZERO_GAP, end - start)
    place = start + ahead / 4
    return Scale(low / margin, high * margin, start + ahead, end, True, place, binary)
