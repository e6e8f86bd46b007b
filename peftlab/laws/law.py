"""What a law is, and when numbers that should be the same are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from peftlab.laws.trial import Trial
    from peftlab.methods import Method

Check = Callable[["Trial"], None]
Tensors = dict[str, torch.Tensor]


class LawBroken(Exception):
    """A method does not do what every method has to do; the message says what it does instead."""


class NotApplicable(Exception):
    """A law says nothing of a method; the message says why."""


@dataclass(frozen=True)
class Finding:
    """A law in words, and what breaks it, or why it says nothing of a method; else it holds."""

    name: str
    problem: str | None = None
    not_applicable: str | None = None


@dataclass(frozen=True)
class Law:
    """What every method keeps, or every one of a kind.

    Attributes:
        name: the law in words.
        check: raises `LawBroken` where a trial does not keep it, `NotApplicable` where that shows
            only there.
        exempt: why it says nothing of a method; empty where it does.
    """

    name: str
    check: Check
    exempt: Callable[[Method], str]

    def __str__(self) -> str:
        return self.check.__name__

    def applies(self, method: Method) -> bool:
        """Whether it says something of a method."""
        return not self.exempt(method)

    def hold(self, trial: Trial) -> Finding:
        """What it says of a method; whatever error a foreign method ends in breaks the law."""
        if why := self.exempt(trial.method):
            return Finding(self.name, not_applicable=why)
        try:
            self.check(trial)
        except LawBroken as broken:
            return Finding(self.name, str(broken))
        except NotApplicable as error:
            return Finding(self.name, not_applicable=str(error))
        except Exception as error:
            return Finding(self.name, f"{type(error).__name__}: {error}")
        return Finding(self.name)


def law(name: str, exempt: Callable[[Method], str] = lambda _: "") -> Callable[[Check], Law]:
    """Make a law of a function."""
    return lambda check: Law(name, check, exempt)


def untrained(method: Method) -> str:
    """Laws of gradients say nothing of methods that have none."""
    return "" if method.trains else "it trains no numbers"


def require(kept: bool, problem: str) -> None:
    """Raise `LawBroken` with this problem unless it is kept."""
    if not kept:
        raise LawBroken(problem)


def require_close(
    got: Iterable[torch.Tensor], expected: Iterable[torch.Tensor], tolerance: float, problem: str
) -> None:
    """Numbers may differ by `tolerance` of their size, and by twice that where they are small."""
    for one, other in zip(got, expected, strict=True):
        require(one.shape == other.shape, f"{problem}: {list(one.shape)}, {list(other.shape)}")
        over = (one - other).abs() - tolerance * (2 + other.abs())
        if not bool((over <= 0).all()):  # a NaN is not close to anything
            gap = float((one - other).abs().max())
            raise LawBroken(f"{problem}: by up to {gap:.1e}; {tolerance:.0e} of them is allowed")


def require_close_gradients(got: Tensors, expected: Tensors, tolerance: float) -> None:
    """Each tensor by its own norm and, where that is nearly nothing, by the norm of all."""
    require(got.keys() == expected.keys(), f"gradients of {sorted(got)}, not {sorted(expected)}")
    whole = sum(float(gradient.norm()) ** 2 for gradient in expected.values()) ** 0.5
    for name, gradient in expected.items():
        gap = float((got[name] - gradient).norm())
        allowed = tolerance * (float(gradient.norm()) + 0.1 * whole)
        require(gap <= allowed, f"the gradient of {name} differs by {gap:.1e}")
