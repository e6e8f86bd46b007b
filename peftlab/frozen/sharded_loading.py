"""A base that is split over processes from the start: the first one reads it, the others get parts.

No device ever holds more than its parts and one whole parameter; the first process needs room for
the whole base in the CPU's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from transformers import AutoModelForCausalLM

from peftlab.bases.fingerprint import fingerprint
from peftlab.bases.number_formats import QUANTISED, base_bytes
from peftlab.bases.pretrained import read_config, read_tokenizer
from peftlab.bases.shapes import ModelShape
from peftlab.errors import InputError
from peftlab.frozen import checkpoint, quantised
from peftlab.frozen.loading import load_plain, parameter_shapes
from peftlab.frozen.sharding import part
from peftlab.frozen.sharding import shard as split_blocks
from peftlab.measure import free_memory
from peftlab.processes import Processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Shard = Literal["auto", "never", "always"]


class Counted(Protocol):
    """A method, as far as this package needs to know it."""

    def count(self, shape: ModelShape) -> Any:
        """Has `trainable`, how many numbers are trained."""


_FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TRAINED_BYTES = 16  # a trained number, its gradient and two moments
_USED = 0.8  # of what is free; the rest is for activations


def is_to_be_sharded(
    shard: str,
    name: str,
    method: Counted,
    processes: Processes,
    *,
    dtype: str = "fp32",
    device: torch.device | str = "cpu",
) -> bool:
    """Whether a base is split; the same answer in all processes.

    Args:
        shard: of `Shard`; auto splits where the base and what the method trains do not fit beside
            each other on the device of some process.
    """
    if shard != "auto" or processes.count == 1 or dtype in QUANTISED:
        return shard == "always"
    try:
        config = read_config(name)
    except (OSError, ValueError, InputError):
        return False  # loading it says what is wrong
    values, shapes = config.to_dict(), parameter_shapes(config)
    trained = method.count(ModelShape.read(values, shapes)).trainable
    needed = base_bytes(values, shapes, dtype) + _TRAINED_BYTES * trained
    here = torch.device(device).type == "cpu"
    usable = _USED * free_memory(device) / (processes.local if here else 1)
    return any(each[0] for each in processes.numbers(needed > usable))


def load_sharded(
    name: str | Path, dtype: str, device: torch.device | str, processes: Processes
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """A model whose blocks are split over the processes, its tokenizer, and its fingerprint.

    Raises:
        InputError: no such model, no room in the first process, one process, or a quantised base.
    """
    path, read = str(name), None
    if dtype in QUANTISED:
        raise InputError(f"a base in {dtype} cannot be sharded: use bf16, or --shard never")
    problem = ""
    if processes.is_first:
        try:
            read, _ = load_plain(path, dtype, "cpu")
        except InputError as error:
            problem = str(error)
    if problem := processes.told(problem)[0]:
        raise InputError(problem)
    config = read_config(path)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=_FORMATS[dtype])
    model = split_blocks(empty, processes, torch.device(device).type)
    model.to_empty(device=device)
    model.tie_weights()
    own = "" if read is None else fingerprint(quantised.stored_tensors(read))
    _fill(model, read, torch.device(device))
    tokenizer = read_tokenizer(path)
    checkpoint.know(path, tokenizer, config.get_text_config().vocab_size)
    return model, tokenizer, processes.told(own)[0]


@torch.no_grad()
def _fill(model: PreTrainedModel, read: PreTrainedModel | None, device: torch.device) -> None:
    """Give every process its parts of what the first one has read."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    given = {} if read is None else dict(_tensors(read))
    for name, tensor in _tensors(model):
        whole = (
            given.pop(name).to(device)
            if read is not None
            else torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        )
        if isinstance(tensor, DTensor):
            split = distribute_tensor(whole, tensor.device_mesh, tensor.placements)
            part(tensor).copy_(part(split))
        else:
            torch.distributed.broadcast(whole, 0)
            tensor.copy_(whole)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
