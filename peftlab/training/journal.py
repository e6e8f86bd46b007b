"""A run's folder while it trains: `metrics.jsonl` and the checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from peftlab.files import append, lines_of, make_folder, write_text
from peftlab.methods.base import State
from peftlab.training import checkpoint
from peftlab.training.checkpoint import Checkpoint, Descending, Progress
from peftlab.training.tracking import Listen


class Journal:
    """Writes and reads a run's folder; without one, or in any process but the first, does nothing.

    Args:
        identity: a hash of all that decides the run's result; see `checkpoint`.
        writes: this is the first process.

    Attributes:
        listen: is told every line of `metrics.jsonl`.
    """

    def __init__(self, folder: Path | None, identity: str, writes: bool) -> None:
        self.folder, self.identity, self.writes = folder, identity, writes and folder is not None
        self.first = writes
        self.listen: Listen | None = None

    @property
    def _metrics(self) -> Path:
        assert self.folder is not None
        return self.folder / "metrics.jsonl"

    @property
    def _checkpoint(self) -> Path:
        assert self.folder is not None
        return self.folder / "checkpoint.safetensors"

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Append a line, and tell it."""
        if self.first and self.listen is not None:
            self.listen(step, values)
        if self.writes:
            append(self._metrics, json.dumps({"step": step, **values}) + "\n")

    def save(self, state: State, best: State, descending: Descending, progress: Progress) -> None:
        """Replace the checkpoint; every process takes part."""
        if self.folder is not None:
            given = (state, best, descending, progress, self.identity, self.writes)
            checkpoint.save(self._checkpoint, *given)

    def restore(self) -> Checkpoint | None:
        """The checkpoint, if there is one; lines of later steps are dropped, they will come again.

        Raises:
            InputError: a damaged checkpoint, or one of another run.
        """
        if self.folder is None:
            return None
        make_folder(self.folder)
        if not self._checkpoint.exists():
            if self.writes:
                self._metrics.unlink(missing_ok=True)
            return None
        restored = checkpoint.load(self._checkpoint, self.identity)
        if self.writes and self._metrics.exists():
            text = self._metrics.read_text(encoding="utf-8")
            kept = [f"{x}\n" for x in lines_of(text) if _step_of(x) <= restored.progress.step]
            write_text(self._metrics, "".join(kept))
        return restored


def _step_of(line: str) -> float:
    """A half-written last line belongs to no step that is kept."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):
        return math.inf
