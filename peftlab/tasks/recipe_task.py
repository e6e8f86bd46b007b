"""From a recipe to a task: its rows from the hub or a local folder, its texts, its subsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peftlab.errors import InputError, nearest
from peftlab.tasks import columns, sources
from peftlab.tasks.build import Settings, finish
from peftlab.tasks.example import Example
from peftlab.tasks.files import Table
from peftlab.tasks.linearise import FORMS
from peftlab.tasks.options import Options
from peftlab.tasks.recipe import Recipe, Split, Where
from peftlab.tasks.task import Task
from peftlab.tasks.template import Template


def recipe_task(recipe: Recipe, options: Options, folder: Path | None = None) -> Task:
    """Return the task of `recipe`. folder: where the recipe is, to which its `data` is relative."""
    if options.columns:
        raise InputError(
            f"The recipe {recipe.name} names its columns itself. To read other columns, copy the "
            "recipe and change it, or load the data without the recipe."
        )
    tables, kind, location = _tables(recipe, options, folder)
    extra = Template(options.template or recipe.template).markup.columns
    splits: dict[str, list[Example]] = {}
    notes: list[str] = []
    subsets: dict[str, tuple[int, ...]] = {}
    for name, table in tables.items():
        split: Split = name  # type: ignore[assignment]  # the keys are the three names
        kept = _rows(recipe, split, table, extra, options.drop_blank or recipe.drop_blank, notes)
        examples = [example for example, _ in kept]
        if kind == "hub":
            _compare_size(recipe, split, len(examples), notes)
        splits[split] = columns.group(examples) if recipe.group else examples
        if split == "test":
            subsets = _subsets(recipe, kept, splits[split])
    return finish(_settings(recipe, kind, location), splits, options, notes, subsets)


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
        return sources.from_folder(path, config), "files", str(path)
    assert hub is not None  # a recipe has data or a hub id
    # The parquet copy is a revision of its own, so one that the user names goes before it.
    copy = None if options.revision else hub.parquet_splits()
    tables = sources.from_hub(hub.id, config, options.revision or hub.revision, copy)
    return tables, "hub", hub.id


def _rows(
    recipe: Recipe,
    split: Split,
    table: Table,
    extra: Sequence[str],
    drop_blank: bool,
    notes: list[str],
) -> list[tuple[Example, str]]:
    """Return every kept row as an example, with the value that decides its subset."""
    kept: list[tuple[Example, str]] = []
    blank = 0
    for index, row in enumerate(table.rows):
        place = table.place(index)
        if not all(_holds(where, split, row, place) for where in recipe.keep):
            continue
        source, targets = _source(recipe, row, place), _targets(recipe, split, row, place)
        if not source.strip() or not targets:
            blank += 1
            if not drop_blank:
                raise InputError(
                    f"{place}: the source or the target is empty. Take the row out, or load with "
                    "drop_blank=True to leave such rows out."
                )
            continue
        fields = {name: columns.text(row, name, place) for name in extra}
        subset = str(_at(row, recipe.subsets.column, place)) if recipe.subsets else ""
        kept.append((Example(source, targets, fields), subset))
    if blank:
        notes.append(f"{blank} rows of {split} without a source or a target are left out.")
    if not kept:
        raise InputError(f"{table.name} has no row that the recipe {recipe.name} can use.")
    return kept


def _at(row: Mapping[str, Any], path: str, place: str) -> Any:
    """Return the value at a dotted path; a list of structs gives the list of the member."""
    value: Any = row
    for name in path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and all(name in item for item in value):
            value = [item[name] for item in value]
        else:
            raise InputError(
                f"{place} has no column {path!r}; it has {', '.join(row)}.{nearest(path, row)} "
                "The recipe expects the layout of its hub data set."
            )
    return value


def _holds(where: Where, split: Split, row: Mapping[str, Any], place: str) -> bool:
    return split not in where.splits or str(_at(row, where.column, place)) in where.values


def _source(recipe: Recipe, row: Mapping[str, Any], place: str) -> str:
    value = _at(row, recipe.source.column, place)
    if value is None and recipe.drop_blank:
        return ""
    try:
        return FORMS[recipe.source.form](value)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{place}: the column {recipe.source.column!r} is not what the form "
            f'"{recipe.source.form}" expects: {error}.'
        ) from error


def _targets(recipe: Recipe, split: Split, row: Mapping[str, Any], place: str) -> tuple[str, ...]:
    value = _at(row, recipe.target.column, place)
    texts = value if isinstance(value, list) else [value]
    where = recipe.target.where
    if where is not None and split in where.splits:
        marks = _at(row, where.column, place)
        texts = [text for text, mark in zip(texts, marks, strict=True) if mark in where.values]
    named = (columns.checked(text, recipe.target.column, place) for text in texts if text)
    return tuple(text for text in named if text.strip())


def _compare_size(recipe: Recipe, split: Split, found: int, notes: list[str]) -> None:
    published = recipe.sizes.get(split)
    if published is not None and published != found:
        notes.append(f"{split} has {found} rows here; {published} are published.")


def _subsets(
    recipe: Recipe, kept: Sequence[tuple[Example, str]], test: Sequence[Example]
) -> dict[str, tuple[int, ...]]:
    if recipe.subsets is None:
        return {}
    values = [value for _, value in kept]
    if recipe.group:
        first = {example.source: value for example, value in reversed(kept)}
        values = [first[example.source] for example in test]
    return {
        name: tuple(i for i, value in enumerate(values) if value in members)
        for name, members in recipe.subsets.parts.items()
    }
