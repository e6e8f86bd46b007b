"""Activations that backward needs wait in the CPU's memory, so that longer inputs fit on a GPU.

As `torch.autograd.graph.save_on_cpu`, but what lies on the device anyway stays there: a linear map
saves its weight for backward, so that one would copy the whole frozen base in every forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from peftlab.errors import InputError

Waiting = tuple[torch.device, torch.Tensor]


@dataclass
class Moved:
    """bytes: of activations that a forward has moved."""

    bytes: int = 0


@contextmanager
def kept_on_cpu(staying: Iterable[torch.Tensor]) -> Iterator[Moved]:
    """Within it, what autograd saves goes to the CPU, and comes back when backward needs it.

    Args:
        staying: weights and trained tensors; they, and views of them, are not copied.
    """
    here = {tensor.untyped_storage().data_ptr() for tensor in staying}
    moved = Moved()

    def pack(tensor: torch.Tensor) -> torch.Tensor | Waiting:
        if tensor.untyped_storage().data_ptr() in here:
            return tensor
        moved.bytes += tensor.nbytes
        if tensor.device.type != "cuda":
            return tensor.device, tensor.cpu()
        # From pinned memory it comes back while the GPU goes on computing.
        waiting = torch.empty(tensor.size(), dtype=tensor.dtype, pin_memory=True)
        return tensor.device, waiting.copy_(tensor)

    def unpack(packed: torch.Tensor | Waiting) -> torch.Tensor:
        if isinstance(packed, torch.Tensor):
            return packed
        device, tensor = packed
        return tensor.to(device, non_blocking=True)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield moved


def check_device(device: torch.device) -> None:
    """Refuse to move activations to where they are.

    Raises:
        InputError: the base is on the CPU.
    """
    if device.type == "cpu":
        raise InputError(
            "activations of a base on the CPU are in its memory already, so they cannot be moved "
            "there: use --gradient-checkpointing instead, or --device cuda"
        )
