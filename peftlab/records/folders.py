"""What lies where in a comparison's folder, and whose folder it is.

OUT/comparison.json, OUT/config.yaml, from which `compare --config` makes the same runs, and for
every run OUT/<method>-<hash>/seed-<n>/ with the files named here.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftlab.errors import InputError, refusing
from peftlab.files import make_folder, read_json, write_json, writing
from peftlab.methods.adaptation import ADAPTER as ADAPTER
from peftlab.records.record import NAME, Record, Search

COMPARISON = "comparison.json"
SETTINGS = "config.yaml"
CONFIG = "config.json"
PREDICTIONS = "predictions.jsonl"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.safetensors"
TRUNK = "trunk"
SEARCH = "search.json"
WITHIN = "within.json"


def identity(task: Any, base: Any) -> dict[str, Any]:
    """What all runs of a folder have in common: the task's rows and the base's weights.

    The checkpoint is theirs in every number format, the fingerprint that of the first one.
    """
    model = {"name": base.name, "fingerprint": base.fingerprint, "checkpoint": base.checkpoint}
    return {
        "task": {"name": task.name, "fingerprint": task.source.fingerprint},
        "model": {key: value for key, value in model.items() if value is not None},
    }


def claim(out: Path, identity: dict[str, Any], described: dict[str, Any]) -> None:
    """Make the folder this comparison's, or find that it already is.

    Args:
        described: what else `comparison.json` tells (the command, versions).

    Raises:
        InputError: the folder holds another comparison, or something else.
    """
    path = out / COMPARISON
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(f.name != LOCK for f in out.iterdir())):
            raise InputError(
                f"{out} already exists and is not the folder of a comparison: choose another --out"
            )
        write_json(path, {**identity, **described})
        return
    claimed = read_json(path)
    other = [
        f"{part} {claimed.get(part, {}).get('name')} ({_short(claimed.get(part))}) instead of "
        f"{mine['name']} ({_short(mine)})"
        for part, mine in identity.items()
        if not _same(claimed.get(part), mine)
    ]
    if other:
        raise InputError(
            f"{out} holds another comparison, of {' and '.join(other)}: choose another --out, or "
            "delete the folder"
        )


def is_of_another(folder: Path, config_hash: str) -> bool:
    """Whether a run of another configuration has begun in the folder."""
    try:
        begun: object = read_json(folder / CONFIG).get("config_hash")
    except InputError:
        return False
    return begun != config_hash


def record(folder: Path, config_hash: str) -> Record | None:
    """The record in a run's folder, if it is of the same configuration."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        stored = Record.read(path)
    except InputError:
        return None  # half written or of another version: the run is made again
    return stored if stored.config_hash == config_hash else None


def forget_failure(folder: Path) -> None:
    """Remove the record of a failed run that is tried again, so that it cannot be taken for new."""
    path = folder / NAME
    try:
        failed = read_json(path).get("status") == "failed"
    except InputError:
        return
    if failed:
        path.unlink()


def finished(out: Path, folder: Path, config_hash: str) -> Record | None:
    """The record of a run that has ended well under the same configuration."""
    stored = record(out / folder, config_hash)
    return stored if stored is not None and stored.status == "finished" else None


def found_rate(folder: Path) -> Search | None:
    """The result of a search that had ended, from its folder; None where it has not."""
    path = folder / SEARCH
    if not path.exists():
        return None
    with refusing(f"{path} is damaged, delete it to search again: "):
        return Search.model_validate(read_json(path))


LOCK = ".lock"


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold the folder, so that two comparisons never write to it at once.

    Raises:
        InputError: another process holds it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: choose another --out")
    make_folder(out)
    with writing(out):
        held = (out / LOCK).open("w")
    with held as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another comparison is running in {out}") from error
        yield


def _same(part: Any, mine: Any) -> bool:
    checkpoint = mine.get("checkpoint")
    if checkpoint is not None and (part or {}).get("checkpoint") == checkpoint:
        return True
    return _short(part) == _short(mine)


def _short(part: Any) -> str:
    fingerprint = str((part or {}).get("fingerprint", "?"))
    return fingerprint.removeprefix("xxh3-128:")[:8]
