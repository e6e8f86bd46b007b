"""The file of an experiment, checked against the models below."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from peftlab.errors import InputError, nearest
from peftlab.files import checked, read_yaml
from peftlab.records.figures import named

ALL = "all"
Published = tuple[float | None, ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnSpec(_Strict):
    """A column: a metric, or a cost by the names of `records/figures.py`.

    times: what a number is multiplied by, to stand in the unit of the paper. parts: subsets of the
    test split, each a column of its own; `all` is the whole. weights: the metric needs a
    checkpoint, so it is measured only where it is asked for.
    """

    title: str
    metric: str | None = None
    cost: str | None = None
    times: float = 1.0
    digits: int = Field(default=2, ge=0)
    parts: tuple[str, ...] = Field(default=(ALL,), min_length=1)
    weights: bool = False

    @model_validator(mode="after")
    def _of_something(self) -> ColumnSpec:
        if (self.metric is None) == (self.cost is None):
            raise ValueError("exactly one of metric and cost must be given")
        if self.cost is not None:
            try:
                named(self.cost)
            except InputError as error:
                raise ValueError(str(error)) from error
        return self


class TaskSpec(_Strict):
    """What of a task is reported; its name is a recipe's, or a path."""

    title: str
    columns: tuple[ColumnSpec, ...] = Field(min_length=1)

    @property
    def places(self) -> list[tuple[ColumnSpec, str]]:
        """Every column with its part, in the order of published values."""
        return [(column, part) for column in self.columns for part in column.parts]


class Setting(_Strict):
    """How a row is made: the method as one types it, what differs from the task's own settings."""

    method: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    decoding: dict[str, Any] = Field(default_factory=dict)
    max_new_tokens: int | None = Field(default=None, ge=1)
    source_tokens: int | None = Field(default=None, ge=1)

    def over(self, below: Setting) -> Setting:
        """This setting, and what it leaves open from another."""
        return Setting(
            method=self.method or below.method,
            training={**below.training, **self.training},
            decoding={**below.decoding, **self.decoding},
            max_new_tokens=self.max_new_tokens or below.max_new_tokens,
            source_tokens=self.source_tokens or below.source_tokens,
        )


class PublishedSpec(BaseModel):
    """Values for a base, by task, in the order of its columns; null where none is printed."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Published]

    model: str
    source: str

    def values(self, task: str) -> Published | None:
        """Of a task, if there are any."""
        return self.__pydantic_extra__.get(task)


class RowSpec(Setting):
    """A row. by_model: its method on some bases. models: those it belongs to; all where empty.
    tasks: what is different on one task. Without a method there are published values only.
    """

    title: str
    by_model: dict[str, str] = Field(default_factory=dict)
    models: tuple[str, ...] = ()
    tasks: dict[str, Setting] = Field(default_factory=dict)
    published: tuple[PublishedSpec, ...] = ()

    def setting(self, model: str, task: str) -> Setting:
        """What holds on a base and a task."""
        own = Setting(method=self.by_model.get(model))
        return self.tasks.get(task, Setting()).over(own.over(self))


class ExperimentSpec(_Strict):
    """A published table. training: for every row. sources: of published values, by a short name."""

    name: str
    title: str
    models: tuple[str, ...] = Field(min_length=1)
    training: dict[str, Any] = Field(default_factory=dict)
    tasks: dict[str, TaskSpec] = Field(min_length=1)
    rows: tuple[RowSpec, ...] = Field(min_length=1)
    sources: dict[str, str] = Field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> ExperimentSpec:
        for row in self.rows:
            for name in row.tasks:
                self._known("task", name, self.tasks, row.title)
            for name in (*row.models, *row.by_model):
                self._known("model", name, self.models, row.title)
            for published in row.published:
                self._check_published(row.title, published)
        return self

    def _check_published(self, row: str, published: PublishedSpec) -> None:
        self._known("model", published.model, self.models, row)
        self._known("source", published.source, self.sources, row)
        for name, values in published.__pydantic_extra__.items():
            self._known("task", name, self.tasks, row)
            places = self.tasks[name].places
            if len(values) != len(places):
                raise ValueError(
                    f"row {row!r} publishes {len(values)} values for {name} with"
                    f" {published.model}; the task has {len(places)} columns"
                )

    @staticmethod
    def _known(what: str, name: str, names: Any, row: str) -> None:
        if name not in names:
            raise ValueError(f"row {row!r} names the {what} {name!r}.{nearest(name, names)}")


def load(name: str) -> ExperimentSpec:
    """The experiment of a name, or of a YAML file.

    Raises:
        InputError: there is none, or the file cannot be used; lists everything that is wrong.
    """
    known = bundled()
    path = known.get(name) or Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise InputError(
            f"there is no experiment {name!r}.{nearest(name, known)} There are "
            f"{', '.join(known)}; a file of your own ends in .yaml"
        )
    return parse(read_yaml(path), str(path))


def parse(values: Any, place: str) -> ExperimentSpec:
    """The experiment of a file's values; `place` names it in errors.

    Raises:
        InputError: lists everything that is wrong.
    """
    return checked(values, ExperimentSpec, "experiment", place)


def bundled() -> dict[str, Path]:
    """The files of the experiments that come with peftlab, by name."""
    folder = Path(str(package_files("peftlab.experiments")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
