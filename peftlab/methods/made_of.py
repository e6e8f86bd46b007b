"""Methods that are made of trained adaptations: what is read of these, stored and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from peftlab.errors import InputError
from peftlab.files import digest, read_json
from peftlab.methods.adaptation import DESCRIPTION, TENSORS, Adaptation, own_folder
from peftlab.methods.base import Count, Method, State
from peftlab.methods.composed import OfParts, described, joined_states
from peftlab.methods.parse import build_part

if TYPE_CHECKING:
    from peftlab.bases.shapes import ModelShape
    from peftlab.frozen.model import FrozenLM
    from peftlab.lazy import torch
    from peftlab.tasks import Task


@dataclass(frozen=True, kw_only=True)
class MadeOf(OfParts):
    """Weighted adaptations as one; it trains nothing, and holds all that they hold.

    Settings:
        of: folders of adaptations or runs. weights: of each, one number; they may be negative.
        parts: the methods of these, as the folders have them.
    """

    trains: ClassVar = False

    of: tuple[str, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parts:
            object.__setattr__(self, "of", self._named(self.of))
        if len(self.of) < 2 or len(self.of) != len(self.weights):
            raise InputError(
                f"{self.name}: of names {len(self.of)} adaptations and weights {len(self.weights)} "
                "numbers; two or more of each were expected, as of=runs/a+runs/b,weights=0.7+0.3"
            )
        self._check_settings()
        parts = self.parts or [self._described(name) for name in self.of]
        made = tuple(part if isinstance(part, Method) else build_part(part) for part in parts)
        if len(made) != len(self.of):
            raise InputError(f"{self.name}: {len(made)} parts for {len(self.of)} adaptations")
        object.__setattr__(self, "parts", made)

    def _check_settings(self) -> None:
        """Refuse settings of its own that do not go together, before any folder is read."""

    @property
    def label(self) -> str:
        own = {item.name: item.default for item in fields(self) if item.name != "parts"}
        return self._worded(own)

    @property
    def folder_label(self) -> str:
        return self.label

    @property
    def seeded(self) -> bool:
        return False

    def settings(self) -> dict[str, Any]:
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        return own | {"parts": described(self.parts)}

    def identity(self) -> dict[str, Any]:
        parts = [{"method": part.name, **part.identity()} for part in self.parts]
        return super().identity() | {"parts": parts}

    def files(self) -> dict[str, str]:
        return {name: digest(folder / TENSORS) for name, folder in self._folders().items()}

    def count(self, shape: ModelShape) -> Count:
        return Count(0, super().count(shape).stored)

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        loaded = self._loaded(model)
        for name, one, part in zip(self.of, loaded, self.parts, strict=True):
            if one.method != part:
                raise InputError(f"{name} holds {one.method.label} now; it was {part.label}")
        return self.state_of(loaded, model)

    def state_of(self, adaptations: Sequence[Adaptation], model: FrozenLM) -> State:
        """The state of these parts. Raises `InputError` for some that cannot be among them."""
        # Copied: where one adaptation is given twice, a file cannot hold its tensors twice.
        copies = [{n: t.clone() for n, t in one.state.tensors.items()} for one in adaptations]
        pairs = zip(copies, adaptations, strict=True)
        return joined_states([State(own, one.state.text) for own, one in pairs])

    def _named(self, pieces: tuple[str, ...]) -> tuple[str, ...]:
        """The names in a text that was split at each `+`, which folders' names may hold too."""
        found, name = list[str](), ""
        for piece in pieces:
            name = f"{name}+{piece}" if name else piece
            if self._is_one(name):
                found.append(name)
                name = ""
        return pieces if name else tuple(found)

    def _is_one(self, name: str) -> bool:
        return Path(name).is_dir()

    def _folders(self) -> dict[str, Path]:
        return {name: own_folder(Path(name)) for name in self.of}

    def _loaded(self, model: FrozenLM) -> list[Adaptation]:
        folders = self._folders()
        return [Adaptation.load(folders[name], model) for name in self.of]

    def _described(self, name: str) -> Mapping[str, Any]:
        """The method of an adaptation's folder, and its settings."""
        own = own_folder(Path(name))
        if not (own / DESCRIPTION).is_file():
            raise InputError(
                f"{name} holds no adaptation of peftlab's own; one of PEFT's is taken by "
                f"`peftlab combine` or pl.{'mixture' if self.name == 'mixture' else 'combine'}"
            )
        told = read_json(own / DESCRIPTION)
        settings = told.get("settings")
        return {"method": told.get("method"), **(settings if isinstance(settings, dict) else {})}
