"""Tables from the hub and from folders that `datasets` understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import InputError
from peftlab.tasks import files, splits
from peftlab.tasks.opened import stem_of
from peftlab.tasks.table import Table

if TYPE_CHECKING:
    import datasets

PARQUET_BRANCH = "refs/convert/parquet"


def from_folder(
    folder: Path, config: str | None = None, first: int | None = None
) -> dict[str, Table]:
    """Return the splits of a local folder, of each file no more than the `first` rows.

    The folder was saved by `datasets`, or holds files named after splits, or has the layout of a
    hub repository (`data/train-00000-of-00001.parquet`, a README with configurations, …).
    """
    import datasets

    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _tables(datasets.load_from_disk(str(folder)), str(folder))
    by_split = splits.find_splits(folder)
    if by_split:
        tables = {split: _joined(folder, split, paths, first) for split, paths in by_split.items()}
        return _saying(tables, _passed_over(folder, by_split))
    held = files.data_files(folder, below=True)
    if not held:
        raise InputError(
            f"The folder {folder} holds no file of rows; train.jsonl, validation.csv, test.parquet "
            f"or the like were expected ({', '.join(files.EXTENSIONS)}), or a folder saved by "
            "datasets."
        )
    tables = _load(str(folder), config, None, None)
    _refuse_pooled(folder, tables, held)
    pooled = (f"The rows of {len(held)} files of {folder} are taken together.",)
    return _saying(tables, pooled if len(tables) < len(held) else ())


def _joined(folder: Path, split: str, paths: Sequence[Path], first: int | None) -> Table:
    if len(paths) == 1:
        return files.read(paths[0], first)
    rows = [row for path in paths for row in files.read(path, first).rows]
    return Table(f"{folder}, split {split}", rows)


def _passed_over(folder: Path, by_split: Mapping[str, Sequence[Path]]) -> tuple[str, ...]:
    read = {path for paths in by_split.values() for path in paths}
    others = [path.name for path in files.data_files(folder) if path not in read]
    return (f"Not read, since no split is called so: {', '.join(others)}.",) if others else ()


def _refuse_pooled(folder: Path, tables: Mapping[str, Table], held: Sequence[Path]) -> None:
    """Refuse a file called a test set that has become training rows."""
    for path in held:
        if "test" not in tables and splits.split_of(stem_of(path)) == "test":
            raise InputError(
                f"{path.relative_to(folder)} is called a test set, and would be read as training "
                f"rows. Put the files of the splits into {folder} itself, as train, validation and "
                "test."
            )


def _saying(tables: dict[str, Table], notes: tuple[str, ...]) -> dict[str, Table]:
    first = next(iter(tables))
    return {**tables, first: replace(tables[first], notes=(*tables[first].notes, *notes))}


def from_hub(
    name: str,
    config: str | None = None,
    revision: str | None = None,
    parquet_splits: Mapping[str, str] | None = None,
) -> dict[str, Table]:
    """Return the splits of a data set of the hub.

    parquet_splits: read the hub's own parquet copy instead, whose splits have these names. It is
    there for data sets that are a loading script, which `datasets` no longer runs.
    """
    if parquet_splits is None:
        return _load(name, config, revision, None)
    root = f"hf://datasets/{name}@{PARQUET_BRANCH}/{config or 'default'}"
    patterns = {split: f"{root}/{theirs}/*.parquet" for split, theirs in parquet_splits.items()}
    return _load("parquet", None, None, patterns, shown=name)


def _load(
    name: str,
    config: str | None,
    revision: str | None,
    data_files: Mapping[str, str] | None,
    shown: str | None = None,
) -> dict[str, Table]:
    import datasets

    shown = shown or name
    try:
        loaded = datasets.load_dataset(name, config, revision=revision, data_files=data_files)
    except Exception as error:  # datasets raises errors of a dozen libraries from here
        raise InputError(
            f"{shown} could not be loaded: {type(error).__name__}: {_first_line(error)}. Check the "
            "name, the configuration (config=…) and the network, or give a local folder (for a "
            "recipe: data=…)."
        ) from error
    return _tables(loaded, shown)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message").rstrip(".")


def _tables(loaded: Any, name: str) -> dict[str, Table]:
    """Return the splits whose names are known; a single split is the train split."""
    import datasets

    if not isinstance(loaded, datasets.DatasetDict):
        return {"train": _table(loaded, f"{name}, split train")}
    parts: Mapping[str, datasets.Dataset] = dict(loaded)
    if len(parts) == 1:
        ((key, part),) = parts.items()
        table = _table(part, f"{name}, split {key}")
        if splits.split_of(key) in (None, "train"):
            return {"train": table}
        said = f"{name} has but one split, {key}: its rows are cut into train and the others."
        return _saying({"train": table}, (said,))
    by_split = splits.sorted_by_split(parts)
    chosen = {split: names[0] for split, names in by_split.items() if len(names) == 1}
    if not chosen:
        raise InputError(
            f"{name} has the splits {', '.join(parts)}; names such as train, validation and test "
            "were expected."
        )
    tables = {split: _table(parts[key], f"{name}, split {key}") for split, key in chosen.items()}
    others = [key for key in parts if key not in chosen.values()]
    said = f"Splits of {name} that are not read: {', '.join(others)}."
    return _saying(tables, (said,) if others else ())


def _table(part: datasets.Dataset, name: str) -> Table:
    import datasets

    if not len(part):
        raise InputError(f"{name} is empty; at least one row was expected.")
    classes = {
        column: tuple(feature.names)
        for column, feature in part.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return Table(name, part, names=part.column_names, classes=classes)
