"""An adapter's folder as it was found, held against a base: all that does not fit, at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab import admission
from peftlab.errors import InputError, shown

if TYPE_CHECKING:
    import torch

    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.base import Method

PREFIX = "base_model.model."  # what PEFT puts before the base's own module names

_ABOUT_THE_FILE = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version",
    "revision", "runtime_config", "task_type",
}  # fmt: skip


@dataclass
class PeftFolder:
    """A configuration and the outline of its tensors.

    First `expect` all that there should be, then `settle`, which reads the numbers, then `take`.
    """

    path: Path
    config: Mapping[str, Any]
    model: FrozenLM
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0  # that its expressions have taken so far
    _expected: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _numbers: dict[str, torch.Tensor] = field(default_factory=dict)

    def understand(self, known: Iterable[str]) -> None:
        """Note every setting that is not in `known` and is switched on."""
        task = self.config.get("task_type")
        if task not in (None, "CAUSAL_LM"):
            self.problems.append(f"task_type is {task!r:.60}, expected CAUSAL_LM")
        for name, value in sorted(self.config.items()):
            if value and name not in _ABOUT_THE_FILE and name not in known:
                self.problems.append(f"{shown(name)}={value!r:.60} has no counterpart in peftlab")

    def number(self, name: str, kind: type[int] | type[float] = int) -> Any:
        """A setting that has to be a positive number; 1 where it is not, and noted."""
        return self.positive(name, self.config.get(name), kind)

    def positive(self, name: str, value: Any, kind: type[int] | type[float] = int) -> Any:
        """The value if it is a positive finite number, else 1, which is noted."""
        if isinstance(value, (int, kind)) and not isinstance(value, bool) and 0 < value < _MOST:
            return value
        self.problems.append(f"{name} is {value!r:.60}, expected a positive number")
        return 1

    def expect(self, name: str, size: tuple[int, ...]) -> None:
        """A tensor that there has to be."""
        self._expected[name] = size

    def settle(self, method: Method | None = None) -> None:
        """Refuse the adapter if anything does not fit; else read its numbers.

        Args:
            method: what was read of the settings; None where they make none.

        Raises:
            InputError: lists all of it.
        """
        if method is not None and not self.problems:
            method.check(self.model.shape)  # before what its settings promise is looked for
        outline = admission.outline(self.path)
        listed = self.problems + admission.misfits(outline, self._expected)
        if not listed:
            self._numbers = admission.numbers(self.path, self._expected)
            return
        shape = self.model.shape
        raise InputError(
            f"{self.path.parent} is no {self.config['peft_type']} adapter for {self.model.name} "
            f"({shape.family}, {shape.layers} blocks, hidden size {shape.hidden}): "
            + "; ".join(listed)
        )

    def take(self, name: str) -> torch.Tensor:
        """An expected tensor in float32, once all is settled."""
        return self._numbers[name]


_MOST = 1 << 31
