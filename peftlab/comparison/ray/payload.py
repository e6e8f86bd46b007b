"""A run's folder as it travels between machines that share no file system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftlab.files import make_folder, write_bytes
from peftlab.records import folders
from peftlab.records.record import NAME

Files = dict[str, bytes]
_Seen = dict[str, tuple[int, int]]
_LASTING = (folders.CHECKPOINT, NAME)  # what can be continued from once it has arrived


@dataclass(frozen=True)
class Place:
    """Where a node works.

    Attributes:
        name: of the node, for people.
        folder: of its base server; kept activations lie there too.
        out: the comparison's folder, or, where the node does not see that, one of its own.
        shared: whether it sees it.
        fingerprints: of the base that is held, by number format.
    """

    name: str
    folder: Path
    out: Path
    shared: bool
    fingerprints: tuple[str, ...]


def packed(folder: Path) -> Files:
    """All files of a folder, by their paths in it, without locks and kept activations."""
    return {name: (folder / name).read_bytes() for name in sorted(_stamps(folder))}


def unpack(files: Files, folder: Path) -> None:
    """Write files into a folder, each whole or not at all, records last."""
    for name in sorted(files, key=lambda name: Path(name).name == NAME):
        path = folder / name
        make_folder(path.parent)
        write_bytes(path, files[name])


class Changes:
    """What has changed in a folder since it was last asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._seen = folder, _stamps(folder)

    def take(self) -> Files:
        """The files that are new, if a checkpoint or a record is among them; else none."""
        now = _stamps(self.folder)
        changed = [name for name in now if now[name] != self._seen.get(name)]
        if not any(Path(name).name in _LASTING for name in changed):
            return {}
        self._seen = now
        return {name: (self.folder / name).read_bytes() for name in changed}


def _stamps(folder: Path) -> _Seen:
    stamps: _Seen = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        stays = any(part.startswith(".") or part == folders.TRUNK for part in name.parts)
        if not stays and path.is_file():
            status = path.stat()
            stamps[name.as_posix()] = (status.st_mtime_ns, status.st_size)
    return stamps
