"""Tables from the hub and from folders that `datasets` understands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import InputError
from peftlab.tasks import files
from peftlab.tasks.files import Table

if TYPE_CHECKING:
    import datasets

PARQUET_BRANCH = "refs/convert/parquet"


def from_folder(folder: Path, config: str | None = None) -> dict[str, Table]:
    """Return the splits of a local folder.

    The folder was saved by `datasets`, or holds files named after splits, or has the layout of a
    hub repository (`data/train-00000-of-00001.parquet`, a README with configurations, …).
    """
    import datasets

    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _tables(datasets.load_from_disk(str(folder)), str(folder))
    found = files.find_splits(folder)
    if found:
        return {split: files.read(path) for split, path in found.items()}
    if not any(path.suffix.lower() in files.EXTENSIONS for path in folder.rglob("*")):
        raise InputError(
            f"The folder {folder} holds no file of rows; train.jsonl, validation.csv, test.parquet "
            f"or the like were expected ({', '.join(files.EXTENSIONS)}), or a folder saved by "
            "datasets."
        )
    return _load(str(folder), config, None, None)


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

    parts: Mapping[str, datasets.Dataset] = (
        dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    )
    found: dict[str, Table] = {}
    for key, part in parts.items():
        split = "train" if len(parts) == 1 else files.split_of(key)
        if split is not None and split not in found:
            found[split] = _table(part, f"{name}, split {key}")
    if not found:
        raise InputError(
            f"{name} has the splits {', '.join(parts)}; names such as train, validation and test "
            "were expected."
        )
    return found


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
