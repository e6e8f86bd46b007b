"""From a name, a path or a hub id to a task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peftlab.errors import InputError, nearest
from peftlab.tasks import files, recipe, sources, splits
from peftlab.tasks.build import Settings, Splits, finish
from peftlab.tasks.example import Example
from peftlab.tasks.opened import stem_of
from peftlab.tasks.options import Options
from peftlab.tasks.reading import from_tables
from peftlab.tasks.recipe_task import recipe_task
from peftlab.tasks.table import previewed
from peftlab.tasks.task import SPLITS, Task

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Entry:
    """A task that has a name of its own. kind: "demo" or "recipe"."""

    name: str
    kind: str
    title: str


def catalogue() -> list[Entry]:
    """Return the tasks that `Task.load` knows by name: the demo's, then the recipes."""
    from peftlab.demo.world import demo_tasks

    demo = [Entry(name, "demo", task.instruction.strip()) for name, task in demo_tasks().items()]
    read = ((name, recipe.read(path)) for name, path in recipe.bundled().items())
    return demo + [Entry(name, "recipe", described.title) for name, described in read]


def load(name_or_path: str | Path, **options: Any) -> Task:
    """Load a bundled or recipe task by name, own data by path, or a data set of the hub by id.

    A path is a folder with train, validation and test files (jsonl, json, csv, tsv, parquet), a
    folder saved by `datasets`, a single file, or a recipe (.yaml). `webnlg_2017:unseen` narrows the
    test split to a subset.

    Args:
        options: the fields of `peftlab.tasks.options.Options`, `limit` and `seed` above all.

    Rows of large files and data sets stay on disk, and a bar on a terminal says how far they are
    checked.

    Raises:
        InputError: whatever cannot be used, with the nearest name where one is near.
    """
    return load_with(name_or_path, Options.of(options))


def from_files(
    train: str | Path,
    test: str | Path | None = None,
    validation: str | Path | None = None,
    **options: Any,
) -> Task:
    """Load a task from one file a split; splits that are not given are cut from `train`."""
    given = {"train": train, "validation": validation, "test": test}
    paths = {split: Path(path) for split, path in given.items() if path is not None}
    return _of_files(paths, Options.of(options))


def load_with(name_or_path: str | Path, options: Options) -> Task:
    """The same with options that are made already."""
    name = str(name_or_path)
    path = Path(name_or_path).expanduser()
    from peftlab.demo.world import demo_tasks

    base, _, part = name.partition(":")
    named = {**dict.fromkeys(demo_tasks(), "demo"), **dict.fromkeys(recipe.bundled(), "recipe")}
    if base in named:
        task = _demo(base, options) if named[base] == "demo" else _bundled(base, options)
        return task.subset(part) if part else task
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return recipe_task(recipe.read(path), options, path.parent)
    _refuse(options, ("data",), f"{name}, which is no recipe: load the folder itself")
    if path.is_dir():
        held = sources.from_folder(path, options.config, options.preview)
        tables = previewed(held, options.preview)
        return from_tables(path.resolve().name, tables, options, "files", str(path))
    if path.is_file():
        return _of_files({"train": path}, options)
    if _HUB_ID.fullmatch(name) and not files.is_data(path):
        return _hub(name, options)
    raise InputError(
        f'There is no task, file or folder "{name}".{nearest(name, named)} Tasks by name are '
        f"{', '.join(named)}; a data set of the hub is named owner/name."
    )


def _refuse(options: Options, names: Sequence[str], what: str) -> None:
    """Refuse options that would have no effect."""
    for name in names:
        if getattr(options, name) is not None:
            raise InputError(f"{name}={getattr(options, name)} has no meaning for {what}.")


def _bundled(name: str, options: Options) -> Task:
    return recipe_task(recipe.read(recipe.bundled()[name]), options)


def _demo(name: str, options: Options) -> Task:
    from peftlab.demo.world import demo_tasks

    _refuse(
        options, ("data", "columns", "config", "revision", "preview"), f"the bundled task {name}"
    )
    demo = demo_tasks()[name]
    splits: Splits = {
        split: [Example(source, tuple(targets)) for source, targets in demo.splits(split)]
        for split in SPLITS
    }
    settings = Settings(
        name=demo.name,
        template=demo.template,
        kind="demo",
        location=f"peftlab.demo.world:{demo.name}",
        instruction=demo.instruction,
        max_new_tokens=demo.max_new_tokens,
    )
    return finish(settings, splits, options, ())


def _of_files(paths: Mapping[str, Path], options: Options) -> Task:
    tables = {split: files.read(path, options.preview) for split, path in paths.items()}
    tables = previewed(tables, options.preview)
    first = paths["train"]
    stem = stem_of(first)
    name = first.resolve().parent.name if splits.exact_split(stem) else stem
    if splits.split_of(stem) in ("validation", "test") and len(paths) == 1:
        said = f"{first.name} is called a {splits.split_of(stem)} set; its rows are trained on too."
        tables["train"] = replace(tables["train"], notes=(*tables["train"].notes, said))
    return from_tables(name, tables, options, "files", str(first))


def _hub(name: str, options: Options) -> Task:
    held = sources.from_hub(name, options.config, options.revision)
    tables = previewed(held, options.preview)
    return from_tables(
        name, tables, options, "hub", name, config=options.config, revision=options.revision
    )


Task.load, Task.from_files = staticmethod(load), staticmethod(from_files)
