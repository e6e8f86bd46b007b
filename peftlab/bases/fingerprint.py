"""A hash of tensors' names, shapes, types and bytes, to tell whether weights are the same.

xxh3-128: as fast as memory, so that even large models are hashed in full rather than by samples. It
guards against mix-ups and accidents, not against somebody who forges weights on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from peftlab.errors import InputError

if TYPE_CHECKING:
    import torch


def fingerprint(
    named_tensors: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
) -> str:
    """Hash of e.g. `model.state_dict()` or `model.named_parameters()`, as "xxh3-128:<32 digits>".

    The same in every process and on every device, whatever the order of the tensors; another as
    soon as a name, a shape, a type or one bit differs. Sharded tensors are gathered one at a time,
    so that all processes must ask. Raises `InputError` for tensors on meta.
    """
    pairs = named_tensors.items() if isinstance(named_tensors, Mapping) else named_tensors
    state = xxhash.xxh3_128()
    for name, tensor in sorted(pairs, key=lambda pair: pair[0]):
        state.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        state.update(_bytes(name, tensor))
    return f"xxh3-128:{state.hexdigest()}"


def fingerprint_of_files(paths: Iterable[Path]) -> str:
    """Hash of files' names and bytes, in the same form, whatever their order and folder."""
    state = xxhash.xxh3_128()
    for path in sorted(paths, key=lambda path: path.name):
        state.update(f"{path.name}|{path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while piece := file.read(1 << 24):
                state.update(piece)
    return f"xxh3-128:{state.hexdigest()}"


def _bytes(name: str, tensor: torch.Tensor) -> memoryview:
    import torch

    if tensor.is_meta:
        raise InputError(
            f"{name} is on the meta device and holds no data to hash: load the weights first"
        )
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    flat = tensor.detach().contiguous().reshape(-1).cpu()
    return flat.view(torch.uint8).numpy().data
