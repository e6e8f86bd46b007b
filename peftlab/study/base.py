"""What a study is: variants with a place and a line in its figure, and words about the outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from peftlab.errors import InputError
from peftlab.study.points import panel
from peftlab.study.result import Axis, Level, Panel, Point
from peftlab.study.setting import Context, Made, Setting, Variant
from peftlab.tasks import Task

DEMO = "demo"


class Study(ABC):
    """A study. Instances hold nothing; they are the functions that make one.

    Class attributes:
        name: as it is called. title: the question. source: where the figure is known from.
        axis: of the places.
        connected: whether a series is a line. places_are_names: of the variants, not numbers.
        tasks: the demo's tasks that it takes by default.
        takes: which of `values`, `methods`, `words`, `general_text`, `models` the user may choose.
        measures: "module:function" that measures each finished run besides its record.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    axis: ClassVar[Axis]
    connected: ClassVar[bool] = True
    places_are_names: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = (DEMO,)
    takes: ClassVar[frozenset[str]] = frozenset()
    measures: ClassVar[str] = ""

    @abstractmethod
    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        """What is run on a task.

        Raises:
            InputError: a value that the model or the task does not allow.
        """

    def bases(self, say: Callable[[str], None]) -> tuple[str, ...]:
        """The bases that it takes by default; they are made where they are not there yet."""
        return (DEMO,)

    def targets(self, setting: Setting) -> Sequence[Task]:
        """The tasks that the figure is about."""
        return setting.tasks

    def note(self, setting: Setting) -> str:
        """What must be said beside the figure, whatever comes out."""
        return ""

    def then(self, setting: Setting, task: Task, made: Sequence[Made]) -> list[Variant]:
        """Variants that need the adapters of the first ones."""
        return []

    def asks(self, setting: Setting, made: Made) -> dict[str, Any]:
        """What `measures` is told of a variant besides its run, as JSON values."""
        return {}

    def place(self, made: Made) -> float | None:
        """Where a variant's point stands; None for a level."""
        return made.variant.x

    def panels(self, context: Context) -> list[Panel]:
        """The figure's panels for one task: by default one for each metric."""
        return [panel(self, context, metric) for metric in context.setting.metrics]

    @abstractmethod
    def words(self, panel: Panel) -> list[str]:
        """What a panel shows, in sentences made from its numbers."""


def chosen(
    setting: Setting, usual: Sequence[float], *, least: float, most: float, what: str
) -> list[float]:
    """The places of a study: the user's, which must be allowed, or those usual ones that are.

    Raises:
        InputError: one of the user's is too small or too large for this model.
    """
    for value in setting.values:
        if not least <= value <= most:
            raise InputError(
                f"--values has {value:g}, but {what} can be from {least:g} to {most:g} here"
            )
    places = setting.values or tuple(value for value in usual if least <= value <= most)
    return sorted(set(places))


def whole(values: Sequence[float], what: str) -> list[int]:
    """Numbers that must be whole.

    Raises:
        InputError: one is not.
    """
    for value in values:
        if value != int(value):
            raise InputError(f"--values has {value:g}, but {what} is a whole number")
    return [int(value) for value in values]


__all__ = [
    "Axis",
    "Context",
    "Level",
    "Made",
    "Panel",
    "Point",
    "Setting",
    "Study",
    "Variant",
    "chosen",
    "whole",
]
