"""The shape of a decoder model: its parameters, linears and their roles. Needs no torch.

Everything is read off the parameters' names and shapes, so the same code serves a loaded model, a
configuration without weights (`layouts.parameter_shapes`) and a model on the meta device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from peftlab.errors import InputError, nearest

ROLES = ("q", "k", "v", "o", "gate", "up", "down")

# The last part of a linear's path -> its role. `c_proj` and `dense` depend on the parent.
_ROLE_BY_NAME = {
    "q_proj": ("q",), "k_proj": ("k",), "v_proj": ("v",), "o_proj": ("o",), "out_proj": ("o",),
    "gate_proj": ("gate",), "up_proj": ("up",), "down_proj": ("down",),
    "fc1": ("up",), "fc2": ("down",), "c_fc": ("up",),
    "dense_h_to_4h": ("up",), "dense_4h_to_h": ("down",),
    "c_attn": ("q", "k", "v"), "qkv_proj": ("q", "k", "v"), "query_key_value": ("q", "k", "v"),
    "gate_up_proj": ("gate", "up"), "dense": ("o",),
}  # fmt: skip
_BLOCK = re.compile(r"^(?P<prefix>.*?\.)(?P<index>\d+)\.(?P<rest>.+)$")

Rows = tuple[tuple[int, int], ...]  # half-open ranges of output rows


@dataclass(frozen=True)
class Linear:
    """One linear map of a block: `path` is its module's name, `parts` the output rows by role."""

    path: str
    block: int
    in_features: int
    out_features: int
    bias: bool
    parts: Mapping[str, Rows]

    @property
    def leaf(self) -> str:
        """The last part of the path, the name PEFT's `target_modules` uses."""
        return self.path.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Target:
    """A linear, or one role's output rows of it. `rows` and `role` are None for all of them."""

    linear: Linear
    rows: Rows | None = None
    role: str | None = None

    @property
    def name(self) -> str:
        """A name for its tensors: the module's path, with the role where it is a part."""
        return self.linear.path if self.role is None else f"{self.linear.path}.{self.role}"

    @property
    def row_indices(self) -> list[int]:
        """The targeted output rows, in order."""
        ranges = self.rows or ((0, self.linear.out_features),)
        return [row for start, stop in ranges for row in range(start, stop)]

    @property
    def out_features(self) -> int:
        """How many output rows are targeted."""
        if self.rows is None:
            return self.linear.out_features
        return sum(stop - start for start, stop in self.rows)


@dataclass(frozen=True)
class ModelShape:
    """What methods need to know of a base: sizes, parameter names and the roles of its linears."""

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    tied: bool
    parameters: Mapping[str, tuple[int, ...]] = field(repr=False)

    @classmethod
    def read(
        cls, config: Mapping[str, Any], parameters: Mapping[str, tuple[int, ...]]
    ) -> ModelShape:
        """From a transformers configuration (a dict) and all parameters' shapes, tied ones once."""

        def first(*names: str) -> Any:
            return next((config[n] for n in names if config.get(n) is not None), None)

        hidden, heads = first("hidden_size", "n_embd"), first("num_attention_heads", "n_head")
        return cls(
            family=str(config["model_type"]),
            layers=first("num_hidden_layers", "n_layer"),
            hidden=hidden,
            heads=heads,
            kv_heads=first("num_key_value_heads") or heads,
            head_dim=first("head_dim") or hidden // heads,
            vocab=config["vocab_size"],
            context=first("max_position_embeddings", "n_positions", "n_ctx") or 2048,
            tied=not any(name.startswith(("lm_head.", "embed_out.")) for name in parameters),
            parameters=parameters,
        )

    @cached_property
    def size(self) -> int:
        """The number of parameters of the base."""
        return sum(prod(shape) for shape in self.parameters.values())

    def block_of(self, name: str) -> int | None:
        """The block that a parameter or module name lies in, or None outside the blocks."""
        match = _BLOCK.match(name + ".x")
        if match is None or match["prefix"] != self.block_prefix:
            return None
        return int(match["index"])

    @cached_property
    def block_prefix(self) -> str:
        """For example `transformer.h.` or `model.layers.`."""
        for name in self.parameters:
            if match := _BLOCK.match(name):
                return match["prefix"]
        raise InputError("this model has no numbered blocks: it does not look like a decoder")

    def block_parameters(self, block: int) -> list[str]:
        """The names of all parameters of one block."""
        return [name for name in self.parameters if self.block_of(name) == block]

    def numel(self, names: Iterable[str]) -> int:
        """How many numbers these parameters hold."""
        return sum(prod(self.parameters[name]) for name in names)

    @cached_property
    def linears(self) -> tuple[Linear, ...]:
        """Every linear of every block whose role is known, in the model's order."""
        return tuple(
            linear
            for name in self.parameters
            if name.endswith(".weight") and (linear := self._linear(name.removesuffix(".weight")))
        )

    def _linear(self, path: str) -> Linear | None:
        shape, block, leaf = (
            self.parameters[f"{path}.weight"],
            self.block_of(path),
            path.rsplit(".", 1)[-1],
        )
        roles = _ROLE_BY_NAME.get(leaf)
        if leaf == "c_proj":
            roles = ("down",) if ".mlp." in path else ("o",)
        if roles is None or block is None or len(shape) != 2:
            return None
        inner, outer = shape if self.transposed else (shape[1], shape[0])
        return Linear(
            path,
            block,
            inner,
            outer,
            f"{path}.bias" in self.parameters,
            self._parts(leaf, roles, outer),
        )

    @property
    def transposed(self) -> bool:
        """GPT-2's Conv1D keeps its weight as [in, out]."""
        return self.family == "gpt2"

    def _parts(self, leaf: str, roles: Sequence[str], outer: int) -> dict[str, Rows]:
        if roles == ("gate", "up"):
            return {"gate": ((0, outer // 2),), "up": ((outer // 2, outer),)}
        if len(roles) == 1:
            return {roles[0]: ((0, outer),)}
        if leaf == "query_key_value":  # gpt_neox: q, k and v of a head lie side by side
            step = 3 * self.head_dim
            return {
                role: tuple(
                    (h * step + i * self.head_dim, h * step + (i + 1) * self.head_dim)
                    for h in range(self.heads)
                )
                for i, role in enumerate(roles)
            }
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {"q": ((0, q),), "k": ((q, q + kv),), "v": ((q + kv, q + 2 * kv),)}

    def targets(self, names: Sequence[str], blocks: Iterable[int] | None = None) -> list[Target]:
        """Resolve roles (`q`, `v`, …), module names (`c_attn`) or `all-linear` to linears.

        A part of a linear that is also targeted as a whole is dropped: it is in there already.

        Raises:
            InputError: no name, or one that matches nothing (the message lists what there is).
        """
        if not names:
            raise InputError(f"targets is empty; there are: {', '.join(self._target_names)}")
        wanted = set(range(self.layers) if blocks is None else blocks)
        inside = [linear for linear in self.linears if linear.block in wanted]
        targets: list[Target] = []
        for name in names:
            hits = [t for linear in inside if (t := _match(linear, name))]
            if not hits:
                raise InputError(
                    f"target {name!r} matches no linear of this {self.family} model; there are: "
                    f"{', '.join(self._target_names)}.{nearest(name, self._target_names)}"
                )
            targets += [hit for hit in hits if hit not in targets]
        whole = {target.linear.path for target in targets if target.rows is None}
        once = [t for t in targets if t.rows is None or t.linear.path not in whole]
        return sorted(once, key=lambda target: self._order[target.linear.path])

    @cached_property
    def _target_names(self) -> list[str]:
        roles = {role for linear in self.linears for role in linear.parts}
        return [*sorted(roles | {linear.leaf for linear in self.linears}), "all-linear"]

    @cached_property
    def _order(self) -> dict[str, int]:
        return {linear.path: i for i, linear in enumerate(self.linears)}

    def blocks(self, wanted: Sequence[int], what: str = "layers") -> tuple[int, ...]:
        """Check block numbers; negative ones count from the top.

        Raises:
            InputError: a block that does not exist.
        """
        bad = [b for b in wanted if not -self.layers <= b < self.layers]
        if bad:
            raise InputError(
                f"{what}={bad}: this model has {self.layers} blocks, 0 to {self.layers - 1}"
            )
        return tuple(sorted({b % self.layers for b in wanted}))


def _match(linear: Linear, name: str) -> Target | None:
    if name in ("all-linear", linear.leaf, linear.path):
        return Target(linear)
    if name in linear.parts:
        whole = len(linear.parts) == 1
        return Target(linear) if whole else Target(linear, linear.parts[name], name)
    return None
