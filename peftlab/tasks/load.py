"""From a name, a path or a hub id to a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from peftlab.errors import InputError, nearest
from peftlab.tasks import files
from peftlab.tasks.build import Settings, finish, from_tables
from peftlab.tasks.example import Example
from peftlab.tasks.options import Options
from peftlab.tasks.task import SPLITS, Task


def load(name_or_path: str | Path, options: Options) -> Task:
    """Return the task of that name or path; see `Task.load`."""
    name = str(name_or_path)
    from peftlab.demo.world import demo_tasks

    demo = demo_tasks()
    if name in demo:
        return _demo(name, options)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _folder(path, options)
    if path.is_file():
        return from_files({"train": path}, options)
    raise InputError(f'There is no task, file or folder "{name}".{nearest(name, demo)}')


def _demo(name: str, options: Options) -> Task:
    from peftlab.demo.world import demo_tasks

    demo = demo_tasks()[name]
    splits = {
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


def from_files(paths: Mapping[str, Path], options: Options) -> Task:
    """Return the task of one file a split."""
    tables = {split: files.read(path) for split, path in paths.items()}
    first = paths["train"]
    return from_tables(first.stem, tables, options, "files", str(first))


def _folder(path: Path, options: Options) -> Task:
    found = files.find_splits(path)
    if not found:
        raise InputError(
            f"The folder {path} holds no file named after a split, such as train.jsonl, "
            f"validation.csv or test.parquet ({', '.join(files.EXTENSIONS)})."
        )
    tables = {split: files.read(file) for split, file in found.items()}
    return from_tables(path.resolve().name, tables, options, "files", str(path))
