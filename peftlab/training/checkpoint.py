"""A checkpoint: one safetensors file with tensors, optimiser and progress, replaced atomically."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from peftlab.errors import InputError
from peftlab.files import atomically
from peftlab.frozen.sharding import is_sharded, whole
from peftlab.methods.base import State


@dataclass(frozen=True)
class Descending:
    """What an optimiser remembers by parameter, and a schedule; both empty where there is none."""

    moments: dict[int, dict[str, Any]]
    schedule: dict[str, Any]


@dataclass
class Progress:
    """How far training has come; all that a resumed run must know besides tensors.

    Attributes:
        best_loss, best_error: the validation loss of the best state so far, and its standard error.
        seconds: of training steps alone, without evaluation and checkpoints.
        tokens: packed ones of training rows. forward_tokens: tokens through the base in training, a
            backward pass counting once more. validated, validation_seconds: of validations.
        saving_seconds: of checkpoints. spared_seconds: which steps would have taken besides, had
            not other runs computed before what they found kept.
    """

    step: int = 0
    best_loss: float | None = None
    best_error: float | None = None
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    seconds: float = 0.0
    tokens: int = 0
    forward_tokens: int = 0
    validated: int = 0
    validation_seconds: float = 0.0
    saving_seconds: float = 0.0
    spared_seconds: float = 0.0
    step_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def all_seconds(self) -> float:
        """Of steps, validations and checkpoints."""
        return self.seconds + self.validation_seconds + self.saving_seconds

    def add(self, loss: float, tokens: int, forward_tokens: int, seconds: float) -> None:
        """Count a step."""
        self.step += 1
        self.seconds += seconds
        self.tokens += tokens
        self.forward_tokens += forward_tokens
        self.step_seconds.append(seconds)
        self.losses.append(loss)

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Progress:
        """Of a checkpoint; in older ones `forward_tokens` is `passes`."""
        return cls(**{"forward_tokens" if k == "passes" else k: v for k, v in stored.items()})

    def judged(self, loss: float, error: float | None, new: bool) -> None:
        """Count a validation of what a search holds for the best; new: it has found that since."""
        self.best_loss, self.best_error = loss, error
        self.stale = 0 if new else self.stale + 1
        self.best_step = self.step if new else self.best_step

    def improves(self, loss: float, error: float | None = None) -> bool:
        """Count a validation; whether it is the best so far."""
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_error = loss, error
            self.best_step, self.stale = self.step, 0
            return True
        self.stale += 1
        return False


def save(
    path: Path,
    state: State,
    best: State,
    descending: Descending,
    progress: Progress,
    run: str,
    writes: bool = True,
) -> None:
    """Write everything that continues this run bit for bit, with any number of processes.

    Args:
        state, best: the current one and the one with the lowest validation loss; empty before
            there was one.
        run: a hash of what the run is; a checkpoint of another run is not continued.
        writes: false in all processes but the first, which only bring their parts of what is
            sharded: the file holds whole tensors.
    """
    tensors = {f"parameter.{n}": t for n, t in state.tensors.items()}
    tensors |= {f"best.{n}": t for n, t in best.tensors.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in descending.moments.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    described = {
        "progress": asdict(progress),
        "scheduler": descending.schedule,
        "optimizer": plain,
        "text": {"parameter": dict(state.text), "best": dict(best.text)},
        "run": run,
    }
    alone: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if writes or is_sharded(tensor):
            own = _alone(whole(tensor.detach()).cpu())
            alone |= {name: own} if writes else {}
    if not writes:
        return
    about = {"state": json.dumps(described)}
    atomically(path, lambda made: save_file(alone, made, metadata=about))


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous in memory of its own; a copy only where it is not, since moments are large."""
    fills = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if fills and tensor.is_contiguous() else tensor.contiguous().clone()


@dataclass
class Checkpoint:
    """What `load` found."""

    state: State
    best: State
    optimizer: dict[int, dict[str, Any]]
    scheduler: dict[str, Any]
    progress: Progress


def load(path: Path, run: str) -> Checkpoint:
    """Read what `save` wrote.

    Raises:
        InputError: a damaged file, or the checkpoint of a run with other settings.
    """
    try:
        with safe_open(path, "pt") as file:
            described = json.loads(file.metadata()["state"])
            # Copied: see `admission.numbers`.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            f"the checkpoint {path} is damaged ({error}); delete it to start again"
        ) from error
    if described["run"] != run:
        raise InputError(
            f"the checkpoint {path} belongs to a run with other settings; use another folder"
        )
    text, progress = described["text"], Progress.read(described["progress"])
    state, best = State({}, text["parameter"]), State({}, text["best"])
    checkpoint = Checkpoint(state, best, {}, described["scheduler"], progress)
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            checkpoint.optimizer.setdefault(int(index), {})[key] = tensor
        else:
            (checkpoint.state if kind == "parameter" else checkpoint.best).tensors[rest] = tensor
    for index, values in described["optimizer"].items():
        checkpoint.optimizer.setdefault(int(index), {}).update(values)
    return checkpoint
