"""What an allocation asks for, and what it is told."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """A method of a comparison.

    Attributes:
        rates: that it may be trained with, the likeliest first; none: nothing is trained.
        seeded: whether another seed could give another result.
    """

    name: str
    rates: tuple[float, ...] = ()
    seeded: bool = True


@dataclass(frozen=True)
class Train:
    """Train a method to so many steps, on the seed that no verdict reads.

    The answer is its validation loss, a float; None where it failed or diverged. A longer training
    at the same rate goes on from a shorter one.
    """

    method: str
    rate: float
    steps: int


@dataclass(frozen=True)
class Read:
    """Read the first test examples with a method as it is after a whole training on a seed.

    The answer is their scores, [examples] or the metric's rows [examples, width]; None where the
    training failed or diverged. rate: None of a method that trains nothing, whose steps say what
    the others of its comparison have.
    """

    method: str
    rate: float | None
    steps: int
    seed: int
    examples: int


Step = Train | Read
Steps = Generator[Step, Any, T]


class Ground(Protocol):
    """What an allocation stands on."""

    def left(self) -> float:
        """Seconds that are left."""

    def cost(self, step: Step) -> float:
        """Seconds that a step is expected to take; 0 of one that is done already."""
