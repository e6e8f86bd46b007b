"""Recipes: a task of the literature in one YAML file, checked against the models below."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from peftlab.files import checked, read_yaml
from peftlab.tasks.task import Decoding

Split = Literal["train", "validation", "test"]
Form = Literal["text", "sentences", "e2e", "webnlg", "dart"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hub(_Strict):
    """A data set of the hub. `splits` gives its names of our splits where they differ.

    parquet_copy: the repository is a loading script, which `datasets` no longer runs; read the
    parquet copy that the hub keeps beside it.
    """

    id: str
    config: str | None = None
    revision: str | None = None
    parquet_copy: bool = False
    splits: dict[Split, str] = Field(default_factory=dict)

    def parquet_splits(self) -> dict[str, str] | None:
        """The split names of the parquet copy, or None where it is not used."""
        if not self.parquet_copy:
            return None
        ours: tuple[Split, ...] = ("train", "validation", "test")
        return {split: self.splits.get(split, split) for split in ours}


class Source(_Strict):
    """The column that the source is made of, and how it becomes text.

    original: what the data set's own files call it, where the hub's copy has another name.
    """

    column: str
    original: str | None = None
    form: Form = "text"


class Where(_Strict):
    """A condition on a column: its value is one of `values`, in the named splits."""

    column: str
    values: tuple[str, ...]
    splits: tuple[Split, ...] = ("train", "validation", "test")


class Target(_Strict):
    """The column of the targets, dots leading into it: one text, or a list of references.

    where: take only the references for which a parallel column has one of these values. original:
    what the data set's own files call it; columns joined by "+" are a reference each.
    """

    column: str
    original: str | None = None
    where: Where | None = None


class Subsets(_Strict):
    """Named parts of the test split, by the value of a column."""

    column: str
    parts: dict[str, tuple[str, ...]]


class Recipe(_Strict):
    """A task: where its rows are, how they become text, how outputs are made and scored.

    data: a folder beside the recipe, for own data; `hub` otherwise. group: rows of the same
    source are one example with several references. keep: rows to keep. sizes: rows per split, as
    published, after `keep`.
    """

    name: str
    title: str
    hub: Hub | None = None
    data: str | None = None
    source: Source
    target: Target
    keep: tuple[Where, ...] = ()
    group: bool = False
    drop_blank: bool = False
    template: str
    instruction: str = ""
    source_tokens: int | None = Field(default=None, ge=1)
    truncate: Literal["start", "end"] = "end"
    metrics: tuple[str, ...] = Field(min_length=1)
    max_new_tokens: int = Field(ge=1)
    decoding: Decoding = Decoding()
    subsets: Subsets | None = None
    sizes: dict[Split, int] = Field(default_factory=dict)
    labels: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _has_rows(self) -> Recipe:
        if (self.hub is None) == (self.data is None):
            raise ValueError("exactly one of hub and data must be given")
        if self.subsets is not None and self.group:
            raise ValueError("subsets and group do not go together: a group may be in several")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that rows are made of."""
        where = self.target.where
        marks = () if where is None else (where.column,)
        return (self.source.column, *self.target.column.split("+"), *marks)


def read(path: Path) -> Recipe:
    """Return the recipe of a YAML file.

    Raises `InputError` that lists everything that is wrong with it.
    """
    return checked(read_yaml(path), Recipe, "recipe", path)


def bundled() -> dict[str, Path]:
    """Return the files of the recipes that come with peftlab, by name."""
    folder = Path(str(package_files("peftlab.tasks") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
