"""The tensors that are trained: their gradients over all processes, and this process's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from peftlab.frozen.sharding import is_sharded, part, placed, rewrapped
from peftlab.processes import Processes


class Parameters:
    """Leaves by name, as methods see them, and as an optimiser does.

    Attributes:
        live: as the method made them; those of a sharded base's blocks are sharded.
        held: what this process holds of them, on the same memory: the optimiser's parameters, since
            it moves every number by itself.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], processes: Processes) -> None:
        self.processes = processes
        # Contiguous, here and below: a fused optimiser goes through memory from first to last
        # number, whatever the strides, and would not say that it has moved others.
        self.live: dict[str, torch.Tensor] = {
            name: torch.nn.Parameter(tensor.contiguous()) for name, tensor in tensors.items()
        }
        self.held = {
            name: torch.nn.Parameter(part(leaf)) if is_sharded(leaf) else leaf
            for name, leaf in self.live.items()
        }

    @property
    def are_split(self) -> bool:
        """Whether any is sharded."""
        return any(map(is_sharded, self.live.values()))

    def collect(self) -> None:
        """Give every held parameter the sum of all processes' gradients.

        Only these travel between processes; nothing of the base does.
        """
        together = [leaf for leaf in self.live.values() if not is_sharded(leaf)]
        if self.processes.count > 1:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in together]
            for leaf, gradient in zip(together, self.processes.sum(gradients), strict=True):
                leaf.grad = gradient
        for name, leaf in self.live.items():
            if is_sharded(leaf) and leaf.grad is not None:
                # Backward has summed it into its parts.
                self.held[name].grad, leaf.grad = part(leaf.grad).contiguous(), None

    def clip(self, largest: float) -> None:
        """Scale all gradients so that their norm, over all processes' parts, is at most this."""
        squares = torch.zeros(2, device=next(iter(self.held.values())).device)
        for name, parameter in self.held.items():
            if parameter.grad is not None:
                squares[int(is_sharded(self.live[name]))] += parameter.grad.float().square().sum()
        (split,) = self.processes.sum([squares[1]])
        norm = (squares[0] + split).sqrt()
        torch.nn.utils.clip_grads_with_norm_(list(self.held.values()), largest, norm)

    def set(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Overwrite all with whole tensors."""
        with torch.no_grad():
            for name, leaf in self.live.items():
                part(leaf).copy_(part(placed(tensors[name], leaf)))

    def whole_moment(self, name: str, value: Any) -> Any:
        """What an optimiser remembers of a held parameter, as that of the whole parameter."""
        return rewrapped(value, self.live[name]) if isinstance(value, torch.Tensor) else value

    def held_moment(self, name: str, value: Any) -> Any:
        """The reverse of `whole_moment`."""
        leaf = self.live[name]
        alike = isinstance(value, torch.Tensor) and value.shape == leaf.shape
        return part(placed(value, leaf)) if alike and is_sharded(leaf) else value
