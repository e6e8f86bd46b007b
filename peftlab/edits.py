"""Edits: what an adaptation brings to each site of the frozen model.

Every method of the literature changes a decoder at one of six places (compare He et al. 2022,
arXiv:2110.04366, table 1). `Edits` has one field a site, and nothing else enumerates methods.

Shapes: P prompt length, D hidden size, H heads, Hkv key/value heads, hd head size, r rank,
m bottleneck size, L layers.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from peftlab.bases.fingerprint import fingerprint as hash_of
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.tasks.example import Begin

if TYPE_CHECKING:
    from peftlab.bases.shapes import ModelShape
    from peftlab.tasks.template import Template

Sublayer = Literal["attention", "mlp"]


@dataclass(frozen=True)
class KeysValues:
    """Attention site: keys and values [Hkv, P, hd] that every query of the row sees.

    With `gate` None they join the row's own softmax and take the positions 0…P−1 (prefix tuning);
    where edits begin at the cue, the P positions before it, and the keys are those of position 0,
    which are turned to their place in each row. With a `gate` [H] or [1] they have a softmax of
    their own whose result is multiplied by the gate and added (LLaMA-Adapter); they then have no
    position.
    """

    keys: torch.Tensor
    values: torch.Tensor
    gate: torch.Tensor | None = None


@dataclass(frozen=True)
class Dropout:
    """Dropout whose mask depends on the seed, the site, the token and the feature alone.

    So a forward that is computed again repeats it, and it is the same however a step's rows are
    cut into micro-batches or divided among processes, on any device.
    """

    probability: float
    seed: int

    def __call__(self, x: torch.Tensor, site: str, tokens: torch.Tensor) -> torch.Tensor:
        """Drop and rescale what belongs to tokens: x [..., T, D], their numbers [T] in int64."""
        # hash() of a str is salted per process.
        here = zlib.crc32(f"{self.seed}/{site}".encode()) - 2**31
        own = _mixed(((tokens * _ODD) >> 32).to(torch.int32) ^ here)
        features = torch.arange(x.shape[-1], dtype=torch.int32, device=x.device) * _STEP
        number = (_mixed(own.unsqueeze(-1) + features) >> 8) & 0xFFFFFF  # of 24 bits
        keep = number >= round(self.probability * 2**24)
        return x * keep.view(x.shape).to(x.dtype) / (1 - self.probability)


_ODD = 0x9E3779B97F4A7C15 - 2**64  # 2⁶⁴ / φ, as a signed number; products wrap
_STEP = 0x9E3779B9 - 2**32


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """Every bit of an int32 spread over all: lowbias32 of Wellons' hash prospector."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32), (16, 1)):
        x = x ^ ((x >> shift) & (2 ** (32 - shift) - 1))
        x = x * factor if factor != 1 else x
    return x


@dataclass(frozen=True)
class LinearEdit:
    """Linear site: y = out_scale ⊙ (W(in_scale ⊙ x) + up·down·dropout(x)) + b + bias.

    down [r, in], up [out, r] (any scaling folded in), in_scale [in], out_scale [out], bias [out].
    A change of some output rows only (q and v of a fused projection) has zeros in the other rows.
    """

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    in_scale: torch.Tensor | None = None
    out_scale: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    dropout: Dropout | None = None


@dataclass(frozen=True)
class Bottleneck:
    """Sublayer site: h ← h + scale · up·act(down·x + down_bias) + up_bias.

    down [m, D], up [D, m]. x is the sublayer's output h, or its input where `parallel`.
    `norm` is (weight [D], bias [D]) of a layer norm that x passes first.
    """

    down: torch.Tensor
    up: torch.Tensor
    down_bias: torch.Tensor | None = None
    up_bias: torch.Tensor | None = None
    norm: tuple[torch.Tensor, torch.Tensor] | None = None
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    scale: float = 1.0
    parallel: bool = False

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to the sublayer's output; x [..., D]."""
        functional = torch.nn.functional
        if self.norm is not None:
            weight, bias = (part.to(x.dtype) for part in self.norm)
            x = functional.layer_norm(x, (x.shape[-1],), weight, bias)
        inner = getattr(functional, self.activation, torch.tanh)(
            functional.linear(x, self.down.to(x.dtype), _cast(self.down_bias, x))
        )
        return self.scale * functional.linear(inner, self.up.to(x.dtype), _cast(self.up_bias, x))


@dataclass(frozen=True)
class Edits:
    """All that one adaptation changes, one field a site; the default changes nothing.

    Attributes:
        template: the row's text, instead of the task's; pseudo token j has the id −(j+1).
        embeddings: vectors [P, D] of the pseudo tokens.
        attention: by block; several where methods are composed.
        linear: by module path.
        sublayer: by (block, "attention" or "mlp").
        weights: replacement tensors by parameter name.
        begin: the part of a row that is changed; what comes before the cue is the base's own.
        experts: of a mixture, its weighted parts, each with rows of its own; it has nothing else.
    """

    template: Template | None = None
    embeddings: torch.Tensor | None = None
    attention: Mapping[int, tuple[KeysValues, ...]] = field(default_factory=dict)
    linear: Mapping[str, LinearEdit] = field(default_factory=dict)
    sublayer: Mapping[tuple[int, Sublayer], Bottleneck] = field(default_factory=dict)
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    begin: Begin = "row"
    experts: tuple[tuple[float, Edits], ...] = ()

    @property
    def each(self) -> tuple[Edits, ...]:
        """Those of a mixture's experts; of anything else these."""
        return tuple(edits for _, edits in self.experts) or (self,)

    @property
    def shares(self) -> tuple[float, ...]:
        """What each one's logits count, see `frozen.mixing`."""
        return tuple(weight for weight, _ in self.experts) or (1.0,)

    @property
    def changes_nothing(self) -> bool:
        """Whether no site is filled; a text of its own is none."""
        sites = (self.attention, self.linear, self.sublayer, self.weights)
        return self.embeddings is None and not any(sites) and not self.experts

    @property
    def prefix_length(self) -> int:
        """How many positions the keys and values without a gate take: the text starts there."""
        own = (_plain_length(edits) for edits in self.attention.values())
        return max(*own, *(edits.prefix_length for _, edits in self.experts), 0, 0)

    def lowest_block(self, shape: ModelShape) -> int:
        """Below this block the model is the frozen one; `shape.layers`: only the head changes."""
        if self.experts:
            return min(edits.lowest_block(shape) for _, edits in self.experts)
        if self.embeddings is not None:
            return 0
        names = [*self.linear, *self.weights]
        blocks = [shape.block_of(name) for name in names]
        below = any(b is None and not is_top(n) for n, b in zip(names, blocks, strict=True))
        if below:
            return 0
        inside = [
            *self.attention,
            *(block for block, _ in self.sublayer),
            *(b for b in blocks if b is not None),
        ]
        # Keys without a gate shift the positions of the text, and with them every block.
        return 0 if self.prefix_length else min(inside, default=shape.layers)

    def compose(self, other: Edits) -> Edits:
        """Both adaptations at once.

        Raises:
            InputError: both change the same linear, sublayer, weight, text or embeddings, or begin
                at different places.
        """
        merged: dict[str, Any] = {
            f.name: _merge(f.name, getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)
            if f.name != "begin"
        }
        begins = {edits.begin for edits in (self, other) if not edits.changes_nothing}
        if len(begins) > 1:
            raise InputError("composed methods begin at one place: give each begin=cue, or none")
        return Edits(**merged, begin=begins.pop() if begins else "row")

    def detach(self) -> Edits:
        """The same edits outside any graph."""
        return map_tensors(self, lambda tensor: tensor.detach())


def is_top(name: str) -> bool:
    """Whether a parameter outside the blocks comes after them: the final norm and the head."""
    return name.startswith(("lm_head.", "embed_out.")) or any(
        part in name
        for part in ("ln_f.", "model.norm.", "final_layer", "final_norm", "project_out")
    )


def _merge(site: str, first: object, second: object) -> object:
    if _is_empty(first):
        return second
    if _is_empty(second):
        return first
    if site == "attention" and isinstance(first, Mapping) and isinstance(second, Mapping):
        return {
            block: (*first.get(block, ()), *second.get(block, ())) for block in {**first, **second}
        }
    if isinstance(first, Mapping) and isinstance(second, Mapping) and not set(first) & set(second):
        return {**first, **second}
    raise InputError(f"two composed methods both change the {site} site at the same place")


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, Mapping | tuple) and not value)


def map_tensors(edits: Edits, change: Callable[[torch.Tensor], torch.Tensor]) -> Edits:
    """Apply `change` to every tensor of the edits, at whatever depth."""

    def walk(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return change(value)
        if isinstance(value, Mapping):
            return {key: walk(inner) for key, inner in value.items()}
        if isinstance(value, tuple):
            return tuple(walk(inner) for inner in value)
        if isinstance(value, _PARTS):
            return replace(value, **{f.name: walk(getattr(value, f.name)) for f in fields(value)})
        return value

    made: Edits = walk(edits)
    return made


def tensors_of(edits: Edits) -> list[torch.Tensor]:
    """Every tensor of the edits, at whatever depth."""
    tensors: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(edits, keep)
    return tensors


def fingerprint(edits: Edits) -> str:
    """Names all that decides which keys and values a text leaves; "" where nothing is changed.

    The text itself, and with it the template, is no part of it.
    """
    if edits.changes_nothing:
        return ""
    tensors: dict[str, torch.Tensor] = {}
    settings: list[str] = []

    def walk(place: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            tensors[place] = value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{place}/{key}", inner)
        elif isinstance(value, tuple):
            for number, inner in enumerate(value):
                walk(f"{place}/{number}", inner)
        elif isinstance(value, _PARTS):
            for one in fields(value):
                walk(f"{place}.{one.name}", getattr(value, one.name))
        else:
            settings.append(f"{place}={value!r}")

    walk("", _untold(edits).__dict__)
    told = f"{hash_of(tensors)} {sorted(settings)}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _untold(edits: Edits) -> Edits:
    """Without templates."""
    experts = tuple((weight, _untold(own)) for weight, own in edits.experts)
    return replace(edits, template=None, experts=experts)


_PARTS = (KeysValues, LinearEdit, Bottleneck, Edits)


def _plain_length(edits: tuple[KeysValues, ...]) -> int:
    return sum(edit.keys.shape[-2] for edit in edits if edit.gate is None)


def _cast(tensor: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    return None if tensor is None else tensor.to(like.dtype)
