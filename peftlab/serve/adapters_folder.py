"""The folder of adapters that a server may read: names, and links that lead nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from peftlab.errors import InputError
from peftlab.export.opening import FILES, MARKS
from peftlab.serve.errors import UnknownAdapter

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=,-]{0,127}")
_LOOPS = (OSError, RuntimeError)  # what a link that leads in a circle raises, by Python's version


@dataclass(frozen=True)
class AdaptersFolder:
    """A folder whose subfolders are adapters."""

    path: Path

    def adapters(self) -> dict[str, Path]:
        """The subfolders that hold an adaptation, ours or PEFT's, by name.

        Raises:
            InputError: there is no such folder.
        """
        if not self.path.is_dir():
            raise InputError(f"{self.path} is no folder; one with adapters in it was expected")
        return {path.name: path for path in self.path.iterdir() if self._is_adapter(path)}

    def _is_adapter(self, path: Path) -> bool:
        """A link that leads out, or in a circle, is none."""
        try:
            return (
                _NAME.fullmatch(path.name) is not None
                and path.resolve(strict=True).parent == self.path.resolve()
                and any((path / mark).is_file() for mark in MARKS)
            )
        except _LOOPS:
            return False

    def subfolder(self, name: str) -> Path:
        """The subfolder of that name.

        Raises:
            InputError: a name that is none or leads out. UnknownAdapter: no such folder.
        """
        check_name(name)
        path = self.path / name
        try:
            inside = path.resolve().is_relative_to(self.path.resolve())
            there = path.is_dir()
        except _LOOPS as error:
            raise InputError(f"{name!r} is a link that leads in a circle") from error
        if not inside:
            raise InputError(f"{name!r} leads out of the folder of adapters")
        if not there:
            raise UnknownAdapter(f"there is no adapter {name!r} in {self.path}")
        return path

    def check_links(self, folder: Path) -> None:
        """Refuse a subfolder whose files lie elsewhere, but for a hub cache's own blobs.

        A folder that is none of these was named by whoever runs the server, and is not looked at.

        Raises:
            InputError: names the file.
        """
        if folder.parent != self.path:
            return
        home = folder.resolve()
        blobs = [p.parent / "blobs" for p in (home, *home.parents) if p.name == "snapshots"]
        for name in FILES:
            try:
                target = (folder / name).resolve()
            except _LOOPS as error:
                raise InputError(f"{name} is a link that leads in a circle") from error
            if not any(target.is_relative_to(place) for place in (home, *blobs)):
                raise InputError(f"{name} is a link that leads out of the adapter's folder")


def check_name(name: str) -> None:
    """Refuse what cannot be an adapter's name.

    Raises:
        InputError: says what names are made of.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:128]!r} is no adapter's name: letters, digits and _ . + = , - were expected, "
            "at most 128, the first a letter, a digit or _"
        )


def as_name(text: str, otherwise: str) -> str:
    """A folder's or hub id's last part with what no name can hold replaced."""
    return re.sub(r"[^A-Za-z0-9_.+=,-]", "-", Path(text).name).lstrip(".+=,-")[:64] or otherwise
