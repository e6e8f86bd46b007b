"""Actors of a Ray cluster: on each node one that keeps a holder, and one that passes letters on.

Light to import, since each actor is a process of its own.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from peftlab.comparison.ray import holder
from peftlab.comparison.ray.payload import Files
from peftlab.records import folders


@dataclass(frozen=True)
class Place:
    """Where a node works.

    Attributes:
        node: Ray's id of it. name: for people.
        holder: the folder of the process that holds the base; kept activations lie there too.
        out: the comparison's folder, or, where the node does not see that, one of its own.
        shared: whether it sees it.
        fingerprints: of the base that is held, by number format.
    """

    node: str
    name: str
    holder: Path
    out: Path
    shared: bool
    fingerprints: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """Why a node cannot take part."""

    name: str
    reason: str


class Node:
    """An actor, one a node: starts the holder, and takes it along when it ends."""

    def __init__(
        self, out: Path, token: str, model: str, formats: tuple[str, ...], within: Path
    ) -> None:
        self.out, self.token, self.base = out, token, (model, formats, within)
        self._life: Connection | None = None

    def open(self, node: str, name: str) -> Place | Refused:
        """Start the holder and wait until it has loaded the base."""
        folder = Path(tempfile.mkdtemp(prefix="peftlab-"))
        shared = self._sees_out()
        try:
            self._life = holder.start(folder, *self.base)
            word, *values = self._life.recv()
        except (OSError, EOFError) as error:
            return Refused(name, f"its base could not be loaded: {error or 'the process died'}")
        if word == "failed":
            return Refused(name, values[1])
        out = self.out if shared else folder / "out"
        return Place(node, name, folder, out, shared, values[0])

    def stop(self) -> None:
        """Let all runs of this node save and end."""
        if self._life is not None:
            self._life.send("stop")

    def close(self) -> None:
        """Let the holder end; it removes its folder."""
        if self._life is not None:
            self._life.close()
            self._life = None

    def _sees_out(self) -> bool:
        """Whether the comparison's folder here is the one that its command has locked."""
        try:
            return (self.out / folders.LOCK).read_text() == self.token
        except OSError:
            return False


class Mailbox:
    """An actor: what tasks say on the way, until the comparison's process takes it."""

    def __init__(self) -> None:
        self._letters: list[Letter] = []

    def post(self, letter: Letter) -> None:
        """Leave a letter."""
        self._letters.append(letter)

    def take(self) -> list[Letter]:
        """All letters since the last time, in order."""
        letters, self._letters = self._letters, []
        return letters


@dataclass(frozen=True)
class Letter:
    """A task has begun on a node, or files of its folder have changed there."""

    task: int
    node: str
    files: Files = field(default_factory=dict)
