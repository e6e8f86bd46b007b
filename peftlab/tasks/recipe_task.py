"""From a recipe to a task: its rows from the hub or a local folder, its texts, its subsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peftlab.errors import InputError
from peftlab.tasks import columns, sources
from peftlab.tasks.build import Settings, finish
from peftlab.tasks.example import Example
from peftlab.tasks.linearise import FORMS
from peftlab.tasks.options import Options
from peftlab.tasks.reading import read_rows
from peftlab.tasks.recipe import Recipe, Source, Split, Subsets, Target, Where
from peftlab.tasks.table import Table, previewed
from peftlab.tasks.task import Task
from peftlab.tasks.template import Template


def recipe_task(recipe: Recipe, options: Options, folder: Path | None = None) -> Task:
    """Return the task of `recipe`. folder: where the recipe is, to which its `data` is relative."""
    recipe = _with_columns(recipe, options.columns or {})
    tables, kind, location = _tables(recipe, options, folder)
    extra = Template(options.template or recipe.template).markup.columns
    drop_blank = options.drop_blank or recipe.drop_blank
    splits: dict[str, Sequence[Example]] = {}
    notes: list[str] = []
    subsets: dict[str, tuple[int, ...]] = {}
    for name, table in previewed(tables, options.preview).items():
        split: Split = name  # type: ignore[assignment]  # the keys are the three names
        notes += table.notes
        kept = _keep(recipe, split, table)
        here = _as_named(recipe, table)
        used = kept.narrowed([*here.columns, *extra])
        read = RecipeReader(here, split, used, extra, drop_blank)
        rows = read_rows(used, read, split, notes)
        if kind == "hub":
            _compare_size(recipe, split, len(rows), notes)
        splits[split] = columns.group(rows) if recipe.group else rows
        if split == "test" and recipe.subsets is not None:
            subsets = _subsets(recipe.subsets, kept, splits[split])
    return finish(_settings(recipe, kind, location), splits, options, notes, subsets)


def _with_columns(recipe: Recipe, given: Mapping[str, str]) -> Recipe:
    """Return the recipe with the user's names of columns; forms and all else stay."""
    changes: dict[str, Source | Target] = {}
    if "source" in given:
        changes["source"] = Source(column=given["source"], form=recipe.source.form)
    if "target" in given:
        changes["target"] = Target(column=given["target"])
    return recipe.model_copy(update=changes)


def _as_named(recipe: Recipe, table: Table) -> Recipe:
    """Return the recipe with the names of the data set's own files, where the table has those."""
    known = set(table.columns)
    own = {
        role: part.model_copy(update={"column": part.original})
        for role, part in (("source", recipe.source), ("target", recipe.target))
        if part.original is not None
        and part.column.partition(".")[0] not in known
        and known.issuperset(part.original.split("+"))
    }
    return recipe.model_copy(update=own)


def _settings(recipe: Recipe, kind: str, location: str) -> Settings:
    return Settings(
        name=recipe.name,
        template=recipe.template,
        kind=kind,
        location=location,
        instruction=recipe.instruction,
        metrics=recipe.metrics,
        max_new_tokens=recipe.max_new_tokens,
        source_tokens=recipe.source_tokens,
        truncate=recipe.truncate,
        decoding=recipe.decoding,
        labels=recipe.labels,
        config=recipe.hub.config if recipe.hub else None,
        revision=recipe.hub.revision if recipe.hub else None,
    )


def _tables(
    recipe: Recipe, options: Options, folder: Path | None
) -> tuple[dict[str, Table], str, str]:
    """Return the tables, and the kind and location that the record will show."""
    hub = recipe.hub
    config = options.config or (hub.config if hub else None)
    place = options.data
    if place is None and recipe.data is not None:
        place = (folder or Path()) / recipe.data
    if place is not None:
        path = Path(place).expanduser()
        if not path.is_dir():
            raise InputError(f"There is no folder {path} to take the rows of {recipe.name} from.")
        return sources.from_folder(path, config, options.preview), "files", str(path)
    assert hub is not None  # a recipe has data or a hub id
    # The parquet copy is a revision of its own, so one that the user names goes before it.
    copy = None if options.revision else hub.parquet_splits()
    tables = sources.from_hub(hub.id, config, options.revision or hub.revision, copy)
    return tables, "hub", hub.id


def _keep(recipe: Recipe, split: Split, table: Table) -> Table:
    """Return the table without the rows that the recipe's conditions exclude."""
    conditions = [where for where in recipe.keep if split in where.splits]
    if not conditions:
        return table
    kept = [
        row
        for index, row in enumerate(table.rows)
        if all(_holds(where, row, table.place(index)) for where in conditions)
    ]
    if not kept:
        raise InputError(f"{table.name} has no row that the recipe {recipe.name} keeps.")
    return replace(table, rows=kept, lines=None)


@dataclass(frozen=True)
class RecipeReader:
    """Makes an example of a row as the recipe says. extra: columns that the template names."""

    recipe: Recipe
    split: Split
    table: Table
    extra: Sequence[str]
    drop_blank: bool

    def __call__(self, index: int, row: Mapping[str, Any]) -> Example | None:
        """Return the example of row `index` of the table, or None where it is left out."""
        place = self.table.place(index)
        source = self._source(row, place)
        targets = self._targets(row, place)
        if not source.strip() or not targets:
            if self.drop_blank:
                return None
            raise InputError(
                f"{place}: the source or the target is empty. Fill it, or {columns.LEAVE_OUT}"
            )
        return Example(
            source, targets, {name: columns.text(row, name, place) for name in self.extra}
        )

    def _source(self, row: Mapping[str, Any], place: str) -> str:
        column, form = self.recipe.source.column, self.recipe.source.form
        value = columns.at(row, column, place)
        if value is None and self.drop_blank:
            return ""
        try:
            return FORMS[form](value)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f'{place}: the column {column!r} is not what the form "{form}" expects: {error}.'
            ) from error

    def _targets(self, row: Mapping[str, Any], place: str) -> tuple[str, ...]:
        column, where = self.recipe.target.column, self.recipe.target.where
        names = [column] if column in row else column.split("+")
        values = [columns.at(row, name, place) for name in names]
        texts = [t for value in values for t in (value if isinstance(value, list) else [value])]
        if where is not None and self.split in where.splits:
            marks = columns.at(row, where.column, place)
            texts = [text for text, mark in zip(texts, marks, strict=True) if mark in where.values]
        named = (columns.checked(text, column, place) for text in texts if text)
        return tuple(text for text in named if text.strip())


def _holds(where: Where, row: Mapping[str, Any], place: str) -> bool:
    return str(columns.at(row, where.column, place)) in where.values


def _compare_size(recipe: Recipe, split: Split, count: int, notes: list[str]) -> None:
    published = recipe.sizes.get(split)
    if published is not None and published != count:
        notes.append(f"{split} has {count} rows here; {published} are published.")


def _subsets(subsets: Subsets, table: Table, test: Sequence[Example]) -> dict[str, tuple[int, ...]]:
    """Return the places in `test` that belong to each subset, by the column of its own rows."""
    if len(test) != len(table.rows):
        raise InputError(
            f"{table.name} has rows without a source or a target, which subsets forbid."
        )
    values = [str(columns.at(row, subsets.column, table.name)) for row in table.rows]
    return {
        name: tuple(i for i, value in enumerate(values) if value in members)
        for name, members in subsets.parts.items()
    }
