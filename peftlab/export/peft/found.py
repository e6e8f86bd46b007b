"""An adapter's folder as it was found, held against a base: all that does not fit, at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.errors import InputError

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

PREFIX = "base_model.model."  # what PEFT puts before the base's own module names

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_ABOUT_THE_FILE = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version",
    "revision", "runtime_config", "task_type",
}  # fmt: skip


@dataclass
class Found:
    """A configuration and its tensors; `take` what is expected, then `settle`."""

    folder: Path
    config: Mapping[str, Any]
    tensors: dict[str, torch.Tensor]
    model: FrozenLM
    problems: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def understand(self, known: Iterable[str]) -> None:
        """Note every setting that is not in `known` and is switched on."""
        task = self.config.get("task_type")
        if task not in (None, "CAUSAL_LM"):
            self.problems.append(f"task_type is {task}, expected CAUSAL_LM")
        for name, value in sorted(self.config.items()):
            if value and name not in _ABOUT_THE_FILE and name not in known:
                self.problems.append(f"{name}={value!r} has no counterpart in peftlab")

    def number(self, name: str, kind: type[int] | type[float] = int) -> Any:
        """A setting that has to be a positive number; 1 where it is not, and noted."""
        value = self.config.get(name)
        if isinstance(value, (int, kind)) and not isinstance(value, bool) and value > 0:
            return value
        self.problems.append(f"{name} is {value!r}, expected a positive number")
        return 1

    def take(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor in float32, or zeros where it does not fit, which is noted."""
        self._taken.add(name)
        tensor = self.tensors.get(name)
        if tensor is None:
            self.problems.append(f"missing: {name} {list(shape)}")
        elif tuple(tensor.shape) != shape:
            self.problems.append(
                f"wrong shape: {name} {list(tensor.shape)}, expected {list(shape)}"
            )
        elif tensor.dtype not in _FLOATS:
            self.problems.append(
                f"wrong type: {name} {tensor.dtype}, expected float32, bfloat16 or float16"
            )
        elif not tensor.isfinite().all():
            self.problems.append(f"not a number: {name} holds NaN or infinite values")
        else:
            return tensor.float()
        return torch.zeros(shape)

    def settle(self) -> None:
        """Refuse the adapter if anything did not fit.

        Raises:
            InputError: lists all of it.
        """
        surplus = [n for n in self.tensors if n not in self._taken]
        listed = self.problems + [
            f"surplus: {name} {list(self.tensors[name].shape)}" for name in sorted(surplus)
        ]
        if listed:
            shape = self.model.shape
            raise InputError(
                f"{self.folder} is no {self.config['peft_type']} adapter for {self.model.name} "
                f"({shape.family}, {shape.layers} blocks, hidden size {shape.hidden}):\n  "
                + "\n  ".join(listed)
            )
