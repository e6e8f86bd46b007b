"""What a user can say about how a task is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from peftlab.errors import InputError, nearest


@dataclass(frozen=True, kw_only=True)
class Options:
    """The choices of `Task.load`; None leaves a choice to the task or to the usual.

    limit: keep so many (example, target) pairs of train, drawn by seed, and the first so many
        examples of validation and of test.
    test_limit: keep the first so many test examples, whatever `limit` says.
    seed: of the drawn pairs and of splits that have to be cut.
    template: the text of the template. cue: the words before the target of the usual template.
    instruction: the request in words, for hard prompts.
    columns: {"source": column or "column+column", "target": column}; a recipe takes one source
        column, and keeps its form.
    data: a folder or hub id to take a recipe's rows from, in the layout of its hub data set.
    chat: put rows into the tokenizer's chat template; the usual template is then the bare source.
    config, revision: of a hub data set.
    drop_blank: leave out rows with an empty source or target, null or the label -1, instead of
        refusing them.
    long: of rows that do not fit whole, cut the sources (`truncate` says at which end), skip them,
        or refuse them all.
    """

    limit: int | None = None
    test_limit: int | None = None
    seed: int = 0
    template: str | None = None
    instruction: str | None = None
    cue: str | None = None
    columns: Mapping[str, str] | None = None
    data: str | Path | None = None
    config: str | None = None
    revision: str | None = None
    metrics: tuple[str, ...] | None = None
    max_new_tokens: int | None = None
    labels: tuple[str, ...] | None = None
    truncate: Literal["start", "end"] | None = None
    source_tokens: int | None = None
    chat: bool = False
    drop_blank: bool = False
    long: Literal["cut", "skip", "refuse"] = "cut"

    def __post_init__(self) -> None:
        for name in ("limit", "test_limit", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; a whole number from 1 on was expected.")
        if self.long not in ("cut", "skip", "refuse"):
            raise InputError(f'long is {self.long!r}; "cut", "skip" or "refuse" was expected.')
        for name in ("metrics", "labels"):
            if isinstance(getattr(self, name), str):
                raise InputError(
                    f"{name} is the text {getattr(self, name)!r}; a tuple of names was expected."
                )
        for key in self.columns or {}:
            if key not in ("source", "target"):
                raise InputError(
                    f'columns names "{key}"; "source" and "target" were expected. Other columns '
                    "are named in the template, as {column}."
                )
        if self.template is not None and self.cue is not None:
            raise InputError(
                "Both a template and a cue are given. The cue is part of the usual template only: "
                "write it into the template, before {target}."
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Options:
        """Return options from keyword arguments. Raises `InputError` for an unknown name."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(
                    f'A task has no option "{name}"; there are {", ".join(known)}.'
                    f"{nearest(name, known)}"
                )
        return cls(**values)
