"""What a study is: variants with a place and a line in its figure, and words about the outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from peftlab.bases.shapes import ModelShape
from peftlab.errors import InputError
from peftlab.methods import Method
from peftlab.study.result import Axis, Level, Panel, Point
from peftlab.tasks import Task
from peftlab.training import TrainConfig

if TYPE_CHECKING:
    from peftlab.records.reading import StoredRun

DEMO = "demo"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One configuration that a study makes a run of, for every seed.

    Attributes:
        series: the line it belongs to.
        x: its place; None makes it a level, drawn across the whole figure.
        name: what stands at its point, or names its place where places are no numbers.
        rows: training examples that are drawn from the task's; None takes all.
        share: of the budget that it may use.
        base: another base than the study's.
        task: another task than the figure's; such a run is made for others, and not shown.
    """

    series: str
    method: Method
    x: float | None = None
    name: str = ""
    rows: int | None = None
    share: float = 1.0
    base: str | None = None
    task: Task | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a study is carried out on.

    Attributes:
        models: the bases; all studies but that of scale have one. shape: of the first.
        config: of training. search: trials for each variant's rate.
        metrics: shown, a panel each; `loss` is the test loss.
        values: places that the user chose. methods, words: other things that some studies vary.
        general_text: documents in which forgetting is measured.
        out: the folder of the study and of its runs.
    """

    models: tuple[str, ...]
    shape: ModelShape
    tasks: tuple[Task, ...]
    config: TrainConfig
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    out: Path
    device: str = "cpu"
    search: int = 0
    values: tuple[float, ...] = ()
    methods: tuple[Method, ...] = ()
    words: tuple[str, ...] = ()
    general_text: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The base."""
        return self.models[0]


@dataclass(frozen=True)
class Made:
    """A variant with its runs: finished ones, and those that failed.

    measured: what was measured of each finished run besides its record.
    """

    variant: Variant
    runs: tuple[StoredRun, ...]
    failed: tuple[StoredRun, ...] = ()
    measured: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Context:
    """What `panels` and `words` may look at: the setting, one task, and all that was made for it.

    Attributes:
        problems: sentences for the reader; a study may add some.
    """

    setting: Setting
    task: Task
    made: Sequence[Made]
    problems: list[str] = field(default_factory=list)


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
        from peftlab.study.points import panel

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
