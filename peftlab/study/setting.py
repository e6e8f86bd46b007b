"""What a study is carried out on, its variants, and what was made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftlab.bases.shapes import ModelShape
from peftlab.methods import Method
from peftlab.records.reading import StoredRun
from peftlab.tasks import Task
from peftlab.training import TrainConfig


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
