"""The distribution of a difference of two means whose seed variances are only estimated.

Behrens' and Fisher's approach (Fisher 1935, "The fiducial argument in statistical inference"; as a
generalized p value: Weerahandi 1995, "Exact Statistical Methods for Data Analysis", chapter 7):
given estimates s² with f degrees of freedom, variances are distributed as f·s²/χ²(f), and the
difference is a mixture of bell curves over them. Welch's t with Satterthwaite's degrees of freedom
is sharper, but with two or three seeds it calls too many differences real (docs/statistics.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize, special

from peftlab.verdict.components import Array, SeedNoise

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)  # five digits of every p value above 0.001
# u = v³ puts more nodes where χ² is small, which decides the tails
_UNIT = (_NODES + 1) / 2
_QUANTILES = _UNIT**3
_MASS = _WEIGHTS / 2 * 3 * _UNIT**2


@dataclass(frozen=True)
class Difference:
    """Symmetric distribution, round zero, of the error of a difference of two means.

    example_variance: variance over test examples.
    examples: how many there are.
    """

    example_variance: float
    examples: int
    first: SeedNoise
    second: SeedNoise

    def tail(self, size: float) -> float:
        """Probability that the error is above `size`."""
        if size == 0:
            return 0.5
        deviations, mass = self._mixture
        with np.errstate(divide="ignore"):
            standard = size / deviations
        return float((special.stdtr(self.examples - 1, -standard) * mass).sum())

    def quantile(self, level: float) -> float:
        """Half width of the interval that holds the error with probability `level`."""
        beyond = (1 - level) / 2
        high = self.deviation()
        if high == 0:
            return 0.0
        low = 0.0
        while self.tail(high) > beyond:
            low, high = high, high * 2
        accuracy = 1e-5 * high
        return float(
            optimize.brentq(lambda size: self.tail(size) - beyond, low, high, xtol=accuracy)
        )

    def deviation(self) -> float:
        """Standard error with the variances taken as estimated."""
        seeds = sum(
            noise.excess(np.array([noise.degrees]))[0] for noise in (self.first, self.second)
        )
        return float(np.sqrt(self.example_variance + seeds))

    @cached_property
    def _mixture(self) -> tuple[Array, Array]:
        """Standard deviations and their probabilities."""
        first, mass_first = _seed_grid(self.first)
        second, mass_second = _seed_grid(self.second)
        variances = self.example_variance + first[:, None] + second[None, :]
        return np.sqrt(variances), mass_first[:, None] * mass_second[None, :]


def _seed_grid(noise: SeedNoise) -> tuple[Array, Array]:
    """Variances that seeds may add, and their probabilities."""
    if noise.seeds == 0:
        return np.zeros(1), np.ones(1)
    return noise.excess(2 * special.gammaincinv(noise.degrees / 2, _QUANTILES)), _MASS
