"""A base that is too large for one device: every block's parameters split over the processes.

FSDP2 (`torch.distributed.fsdp.fully_shard`; Zhao et al. 2023, arXiv:2304.11277) gathers a block
when it runs and frees it afterwards. What lies outside the blocks, the embeddings and the head,
stays whole in every process: each step needs them at its start and its end, and the head is run
piece by piece. Tensors that replace a sharded parameter are sharded alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from peftlab.bases.number_formats import QUANTISED
from peftlab.bases.shapes import ModelShape
from peftlab.errors import InputError
from peftlab.frozen import quantised
from peftlab.frozen.forward import ForwardContext, current_forward
from peftlab.processes import Processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Project = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this process holds a part of it only."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; where it is sharded, every process must ask.

    Differentiable: the gradients of all processes are summed into the parts.
    """
    from torch.distributed.tensor import DTensor, Partial

    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.full_tensor(grad_placements=[Partial()])


def part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of it, as a plain tensor on the same memory."""
    return tensor.detach().to_local() if is_sharded(tensor) else tensor.detach()  # type: ignore[attr-defined]


def placed(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, sharded and on the device as another one is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    moved = tensor.to(like.device)
    if not isinstance(like, DTensor):
        return moved
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


def rewrapped(own: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of something of the shape of `like`, as such a tensor."""
    from torch.distributed.tensor import DTensor

    if not isinstance(like, DTensor) or own.shape != like.to_local().shape:
        return own
    mesh, placements = like.device_mesh, like.placements
    return DTensor.from_local(
        own, mesh, placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def shard(
    model: PreTrainedModel, processes: Processes, device: str | None = None
) -> PreTrainedModel:
    """Split every block of a plain model over the processes, in place.

    Args:
        device: the kind it is to lie on, where it does not lie on one yet.

    Raises:
        InputError: there is one process only, or the base is quantised.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if processes.count == 1:
        raise InputError(
            "a base can be sharded over several processes only, and this is one; start it with "
            "torchrun --nproc-per-node 2 -m peftlab …, or leave --shard out"
        )
    if (kept := quantised.format_of(model)) in QUANTISED:
        raise InputError(
            f"a base in {kept} cannot be sharded: its weights are no plain tensors; use "
            "--base-dtype bf16, or --shard never"
        )
    shape = ModelShape.read(
        model.config.to_dict(), {n: tuple(p.shape) for n, p in model.named_parameters()}
    )
    mesh = init_device_mesh(device or model.device.type, (processes.count,))
    path = shape.block_prefix.rstrip(".")
    names = [shape.block_parameters(block) for block in range(shape.layers)]
    blocks = [model.get_submodule(f"{path}.{index}") for index in range(shape.layers)]
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # Some families return a view, which nothing changes in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    # The module that calls the blocks is the root, which makes them share streams and prefetching.
    root = model.get_submodule(path.rpartition(".")[0])
    fully_shard(root, mesh=mesh, ignored_params={p for p in root.parameters() if not is_sharded(p)})
    _where(root, lambda context: context.options.project is not None)
    for index, block in enumerate(blocks):
        _where(block, partial(_is_idle, block=index, names=names[index]))
    return model


def _is_idle(context: ForwardContext, block: int, names: list[str]) -> bool:
    """Whether the base's own parameters of a block are not to be gathered for a forward."""
    batch, options = context.batch, context.options
    if options.project is not None or (options.resume is not None and block < options.resume[0]):
        return True
    return len(batch.spans) == 1 and all(name in batch.sites.weights for name in names)


def _where(module: torch.nn.Module, idle: Callable[[ForwardContext], bool]) -> None:
    """Let FSDP's hooks of a module do nothing for a forward that does not need its parameters."""

    def unless_idle(hook: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            context = current_forward()
            return None if context is not None and idle(context) else hook(*args, **kwargs)

        return run

    hooks: MutableMapping[int, Any]
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key, hook in list(hooks.items()):
            hooks[key] = unless_idle(hook)


@contextmanager
def gathered(block: torch.nn.Module) -> Iterator[None]:
    """A block's parameters whole, for `ForwardOptions.project`."""
    was_sharded = any(is_sharded(p) for p in block.parameters())
    block.unshard()  # type: ignore[operator]
    try:
        yield
    finally:
        if was_sharded:  # else it is in use: the backward that gathered it frees it
            block.reshard()  # type: ignore[operator]


def project(run: Project, block: torch.nn.Module, hidden: torch.Tensor) -> Any:
    """What `run` makes of [P, D] with a block's parameters, which are gathered again in backward.

    They are freed in between, so no graph may hold them.
    """
    projected: Any = _Projected.apply(hidden, run, block)
    return projected


class _Projected(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: torch.Tensor, run: Project, block: torch.nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = hidden.device.type
        ctx.run, ctx.block = run, block
        ctx.cast = (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        ctx.save_for_backward(hidden)
        with gathered(block):
            return run(hidden)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, *upstream: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        (saved,) = ctx.saved_tensors
        enabled, dtype = ctx.cast
        hidden = saved.detach().requires_grad_()
        with gathered(ctx.block), torch.enable_grad():
            with torch.autocast(hidden.device.type, dtype, enabled=enabled):
                outputs = ctx.run(hidden)
            (gradient,) = torch.autograd.grad(outputs, hidden, upstream)
        return gradient, None, None
