"""Two or more methods in one adaptation: a prefix with a parallel adapter, LoRA with a prompt.

He et al. 2022, arXiv:2110.04366, section 4.6 (the Mix-And-Match adapter). Sites are filled side by
side; two methods that change the same place are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from peftlab.bases.scale import SEARCHED, Scale
from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import DERIVED, BeginningMethod, Count, Method, Shapes, State

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task, Template


@dataclass(frozen=True, kw_only=True)
class OfParts(Method):
    """A method that holds others, whose tensors are all of theirs."""

    parts: tuple[Any, ...] = ()

    def check(self, shape: ModelShape) -> None:
        for part in self.parts:
            part.check(shape)

    def stored(self, shape: ModelShape) -> Shapes:
        return joined_shapes(self.parts, shape)


@dataclass(frozen=True, kw_only=True)
class Composed(OfParts):
    """Methods that are trained and used together; not in the registry, made by `a+b`."""

    parts: tuple[Method, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple) or not all(isinstance(p, Method) for p in self.parts):
            raise InputError(f"Composed: parts is {self.parts!r:.60}; methods were expected")
        for part in self.parts:
            if part.name in DERIVED:
                raise InputError(
                    f"{self.name}: {part.name} is made of trained adaptations and stands alone"
                )
            if part.searches:
                raise InputError(
                    f"{self.name}: {part.name} searches alone, for a frozen model; then give what "
                    "it found to the other method, as hard_prompt:instruction=…+lora does"
                )
        begins = {part.begin for part in self.parts if isinstance(part, BeginningMethod)}
        if len(begins) > 1:
            raise InputError(
                f"{self.name}: composed methods begin at one place: give each begin=cue, or none"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        return "+".join(part.name for part in self.parts)

    @property
    def label(self) -> str:
        return "+".join(part.label for part in self.parts)

    @property
    def folder_label(self) -> str:
        return "+".join(part.folder_label for part in self.parts)

    @property
    def sites(self) -> tuple[str, ...]:  # type: ignore[override]
        return sites_of(self.parts)

    @property
    def trains(self) -> bool:  # type: ignore[override]
        return any(part.trains for part in self.parts)

    @property
    def seeded(self) -> bool:
        return any(part.seeded for part in self.parts)

    @property
    def begins_at_cue(self) -> bool:
        return any(part.begins_at_cue for part in self.parts)

    @property
    def starts_as_base(self) -> bool:  # type: ignore[override]
        return all(part.starts_as_base for part in self.parts)

    @property
    def learning_rate(self) -> float:
        return self.rate_on(SEARCHED)

    def rate_on(self, scale: Scale) -> float:
        return min(part.rate_on(scale) for part in self.parts if part.trains)

    def shares(self, scale: Scale) -> list[float]:
        rates = [part.rate_on(scale) for part in self.parts if part.trains]
        return [float(f"{rate / min(rates):.4g}") for rate in rates] if len(rates) > 1 else []

    def on(self, task: Task) -> Composed:
        return replace(self, parts=tuple(part.on(task) for part in self.parts))

    def settings(self) -> dict[str, Any]:
        return {"parts": described(self.parts)}

    def identity(self) -> dict[str, Any]:
        return {"parts": [{"method": part.name, **part.identity()} for part in self.parts]}

    def files(self) -> dict[str, str]:
        return {f"{i}.{n}": f for i, part in enumerate(self.parts) for n, f in part.files().items()}

    def count(self, shape: ModelShape) -> Count:
        counts = [part.count(shape) for part in self.parts]
        return Count(sum(c.trainable for c in counts), sum(c.stored for c in counts))

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        return joined_states([part.init(model, task, rng) for part in self.parts])

    def materialise(self, state: State, model: FrozenLM) -> State:
        return joined_states(
            [p.materialise(own, model) for p, own in split_state(self.parts, state)]
        )

    def template(self, template: Template, state: State) -> Template:
        for part, own in split_state(self.parts, state):
            template = part.template(template, own)
        return template

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        return reduce(
            Edits.compose,
            (part.edits(own, model, seed) for part, own in split_state(self.parts, state)),
        )

    def groups(self, state: State, rate: float, scale: Scale) -> list[dict[str, Any]]:
        """Every part keeps its own share of the rate: they differ by orders of magnitude."""
        groups = []
        for i, (part, own) in enumerate(split_state(self.parts, state)):
            share = part.rate_on(scale) / self.rate_on(scale)
            groups += [
                {**group, "params": [f"{i}.{name}" for name in group["params"]]}
                for group in part.groups(own, rate * share, scale)
            ]
        return groups


def sites_of(parts: Sequence[Method]) -> tuple[str, ...]:
    """The sites that any of these methods needs."""
    return tuple(dict.fromkeys(site for part in parts for site in part.sites))


def described(parts: Sequence[Method]) -> list[dict[str, Any]]:
    """Parts by their names and settings, see `parse.build_part`."""
    return [{"method": part.name, **part.settings()} for part in parts]


def joined_shapes(parts: Sequence[Method], shape: ModelShape) -> Shapes:
    """What parts store, each tensor's name led by its part's number."""
    each = enumerate(part.stored(shape) for part in parts)
    return {f"{i}.{name}": size for i, sizes in each for name, size in sizes.items()}


def joined_states(states: Sequence[State]) -> State:
    """The states of parts as one."""
    tensors = {
        f"{i}.{name}": t for i, state in enumerate(states) for name, t in state.tensors.items()
    }
    return State(tensors, {str(i): dict(state.text) for i, state in enumerate(states)})


def split_state(parts: Sequence[Method], state: State) -> list[tuple[Method, State]]:
    """Each part with its own state again."""
    pairs = []
    for i, part in enumerate(parts):
        key = f"{i}."
        own = {n.removeprefix(key): t for n, t in state.tensors.items() if n.startswith(key)}
        text = state.text.get(str(i), {})
        pairs.append((part, State(own, text if isinstance(text, dict) else {})))
    return pairs
