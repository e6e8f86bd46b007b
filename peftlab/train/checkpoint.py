"""A checkpoint: one safetensors file with tensors, optimiser and progress, replaced atomically."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from peftlab.errors import InputError


@dataclass
class Progress:
    """How far training has come; all that a resumed run must know besides tensors.

    Seconds are of training steps alone, without evaluation and checkpoints.
    """

    step: int = 0
    best_loss: float | None = None
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    seconds: float = 0.0
    tokens: int = 0
    step_seconds: list[float] = field(default_factory=list)


def save(
    path: Path,
    parameters: dict[str, torch.Tensor],
    best: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: dict[str, Any],
    progress: Progress,
    run: str,
) -> None:
    """Write everything that continues this run bit for bit.

    Args:
        run: a hash of what the run is; a checkpoint of another run is not continued.
    """
    tensors = {f"parameter.{n}": t for n, t in parameters.items()}
    tensors |= {f"best.{n}": t for n, t in best.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    described = {
        "progress": asdict(progress),
        "scheduler": scheduler,
        "optimizer": plain,
        "run": run,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    contiguous = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    save_file(contiguous, temporary, metadata={"state": json.dumps(described)})
    temporary.replace(path)


@dataclass
class Loaded:
    """What `load` found."""

    parameters: dict[str, torch.Tensor]
    best: dict[str, torch.Tensor]
    optimizer: dict[int, dict[str, Any]]
    scheduler: dict[str, Any]
    progress: Progress


def load(path: Path, run: str) -> Loaded:
    """Read what `save` wrote.

    Raises:
        InputError: a damaged file, or the checkpoint of a run with other settings.
    """
    try:
        with safe_open(path, "pt") as file:
            described = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            f"the checkpoint {path} is damaged ({error}); delete it to start again"
        ) from error
    if described["run"] != run:
        raise InputError(
            f"the checkpoint {path} belongs to a run with other settings; use another folder"
        )
    found = Loaded({}, {}, {}, described["scheduler"], Progress(**described["progress"]))
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            found.optimizer.setdefault(int(index), {})[key] = tensor
        else:
            (found.parameters if kind == "parameter" else found.best)[rest] = tensor
    for index, values in described["optimizer"].items():
        found.optimizer.setdefault(int(index), {}).update(values)
    return found
