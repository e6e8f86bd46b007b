"""Files of an exported folder: tensors written as others look for them, read without unpickling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from peftlab import files
from peftlab.errors import InputError

if TYPE_CHECKING:
    import torch


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file; `format: pt` is what transformers and PEFT look for."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    files.atomically(path, lambda made: save_file(own, made, metadata={"format": "pt"}))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or holds something else.
    """
    if not path.exists():
        raise InputError(f"{path.parent} has no {path.name}")
    return files.read_json(path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        InputError: it is missing (a pickled one beside it is not read) or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        pickled = [
            p.name for ending in ("*.bin", "*.pt", "*.pth") for p in path.parent.glob(ending)
        ]
        also = (
            f"; {', '.join(sorted(pickled))} is pickled, which can run any code, and is never "
            "loaded. Save the adapter again with safe_serialization=True"
            if pickled
            else ""
        )
        raise InputError(f"{path.parent} has no {path.name}{also}") from error
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: {error}") from error
