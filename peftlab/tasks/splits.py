"""Which split a file or a part of a data set is, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from peftlab.errors import InputError
from peftlab.tasks.files import data_files
from peftlab.tasks.opened import stem_of, suffix_of

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing"),
}
_SHARD = re.compile(r"-\d{5}-of-\d{5}")


def exact_split(name: str) -> str | None:
    """The split that is called `name`, None where that is no split's name."""
    lower = name.lower()
    return next((split for split, names in SPLIT_NAMES.items() if lower in names), None)


def split_of(name: str) -> str | None:
    """The split that one word of a name says: of `trainset`, `dart-v1.1.1-full-dev`, `test_w_refs`.

    None where no word says one, and where words say several.
    """
    words = re.findall(r"[a-z]+", name.lower())
    splits = {exact_split(re.sub(r"(?<=.)_?(set|data)$", "", word)) for word in words} - {None}
    return splits.pop() if len(splits) == 1 else None


def sorted_by_split(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by the split that they say; a split's own name leaves no others beside it."""
    names_of: dict[str, list[str]] = {}
    for name in names:
        split = split_of(name)
        if split is not None:
            names_of.setdefault(split, []).append(name)
    for split, those in names_of.items():
        names_of[split] = [name for name in those if exact_split(name)] or those
    return names_of


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """Return the files of `folder` that are named after a split, by split.

    Each split is one file, but for WebNLG's, which are folders of many. Files in pieces
    (`train-00000-of-00002`) are not among them: `datasets` knows those.

    Raises:
        InputError: several files for one split.
    """
    files = data_files(folder)
    if any(_SHARD.search(path.stem) for path in files):
        return {}
    by_split = sorted_by_split(dict.fromkeys(map(stem_of, files)))
    paths_of: dict[str, list[Path]] = {}
    for split, stems in by_split.items():
        paths = [path for path in files if stem_of(path) in stems]
        paths_of[split] = [_only(folder, split, paths)]
    return paths_of or _xml_splits(folder)


def _only(folder: Path, split: str, paths: Sequence[Path]) -> Path:
    # E2E ships its test set twice, once with what the scores need.
    with_references = [path for path in paths if "refs" in path.stem.lower()]
    if len(paths) > 1 and len(with_references) == 1:
        return with_references[0]
    if len(paths) > 1:
        raise InputError(
            f"{folder} holds both {paths[0].name} and {paths[1].name} for the {split} split. "
            "Keep one of them."
        )
    return paths[0]


def _xml_splits(folder: Path) -> dict[str, list[Path]]:
    """`train/1triples/….xml`, `dev/…`, `test/testdata_with_lex.xml`, where all rows are XML."""
    by_split: dict[str, list[Path]] = {}
    for path in data_files(folder, below=True):
        if suffix_of(path) != ".xml":
            return {}
        folders = path.relative_to(folder).parts[:-1]
        split = next(filter(None, map(split_of, folders)), None) or split_of(stem_of(path))
        if split is not None:
            by_split.setdefault(split, []).append(path)
    return by_split
