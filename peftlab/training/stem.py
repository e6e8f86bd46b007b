"""Trainings of several lengths that share their beginning.

Under the schedule warmup_stable_decay a longer training takes the very steps that a shorter one
takes until its rate begins to decay (Hu et al. 2024, arXiv:2404.06395, section 4). What is left
there is kept, and a longer training goes on from it, bit for bit as if it had begun at the start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from peftlab.errors import InputError
from peftlab.methods.base import State
from peftlab.training import checkpoint
from peftlab.training.checkpoint import Checkpoint, Descending, Progress

_NAME = re.compile(r"stem-(\d+)\.safetensors")


class Stem:
    """Kept beginnings of one method at one rate, in a folder of their own.

    Args:
        identity: a hash of all that decides the steps before a decay; its length is none of it.
        leaves: the step at which this training leaves what it shares with longer ones.
    """

    def __init__(self, folder: Path, identity: str, leaves: int) -> None:
        self.folder, self.identity, self.leaves = folder, identity, leaves

    def save(self, state: State, best: State, descending: Descending, progress: Progress) -> None:
        """Keep what the training is where it leaves."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"stem-{self.leaves}.safetensors"
        checkpoint.save(path, state, best, descending, progress, self.identity)
        for left, shorter in list(self._kept()):  # a whole optimiser's state each
            if left < self.leaves:
                shorter.unlink(missing_ok=True)

    def longest(self) -> Checkpoint | None:
        """The longest beginning that is this training's too; damaged or foreign ones are none."""
        for _, path in sorted(self._kept(), reverse=True):
            with suppress(InputError):
                return checkpoint.load(path, self.identity)
        return None

    def _kept(self) -> Iterator[tuple[int, Path]]:
        for path in self.folder.glob("stem-*.safetensors"):
            match = _NAME.fullmatch(path.name)
            if match and int(match[1]) <= self.leaves:
                yield int(match[1]), path
