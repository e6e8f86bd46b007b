"""The last block at the kept tokens only: nothing after it looks at the others.

It runs twice. As far as attention for the keys and values of all tokens; whole for the kept ones,
which then attend to those. Each time its linears compute what is used of their output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers.pytorch_utils import Conv1D

from peftlab.bases.shapes import Linear
from peftlab.frozen.attention import Captured
from peftlab.frozen.batch import Batch
from peftlab.frozen.forward import ForwardContext


def on_kept_tokens(
    context: ForwardContext,
    plain: Callable[..., Any],
    hidden: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """A block's forward, [1, N, D] -> the same with zeros at the tokens that are not kept."""
    batch = context.batch
    context.to_attention = True
    try:
        plain(hidden, *args, **kwargs)
    except Captured as captured:
        context.captured = (captured.keys, captured.values)
    finally:
        context.to_attention = False
    context.running = context.kept
    try:
        few = partial(_kept_only, batch)
        out = plain(few(hidden), *map(few, args), **{key: few(x) for key, x in kwargs.items()})
    finally:
        context.running, context.captured = context.whole, None
    states = out[0] if isinstance(out, tuple) else out
    whole = hidden.new_zeros(hidden.shape, dtype=states.dtype).index_copy(1, batch.keep, states)
    return (whole, *out[1:]) if isinstance(out, tuple) else whole


def _kept_only(batch: Batch, x: Any) -> Any:
    """The kept tokens of whatever is laid out by token: states, positions, rotary tables."""
    if isinstance(x, torch.Tensor) and x.dim() >= 2 and x.shape[1] == len(batch.ids):
        return x.index_select(1, batch.keep)
    if isinstance(x, tuple):
        return tuple(_kept_only(batch, part) for part in x)
    return x


class Rows(NamedTuple):
    """Output rows [start, stop) of a linear that has so many."""

    start: int
    stop: int
    all: int


@dataclass(frozen=True)
class Used:
    """The part of a linear's output that each of the two runs uses; None: all of it.

    Attributes:
        before: on the way to attention, for keys and values. narrowed: at the kept tokens.
    """

    before: Rows | None = None
    narrowed: Rows | None = None

    @classmethod
    def of(cls, module: torch.nn.Module, linear: Linear | None) -> Used:
        """Of a module, by what its outputs are in the block."""
        if linear is None:
            return cls()
        return cls(_without(module, linear, {"q"}), _without(module, linear, {"k", "v"}))

    def by(self, context: ForwardContext) -> Rows | None:
        """What the run that is under way uses."""
        if context.to_attention:
            return self.before
        return self.narrowed if context.narrowed else None


def _without(module: torch.nn.Module, linear: Linear, roles: set[str]) -> Rows | None:
    size = linear.out_features
    spans = [s for role, rows in linear.parts.items() if role not in roles for s in rows]
    if not spans:
        return Rows(0, 0, size)
    start, stop = min(spans)[0], max(spans)[1]
    together = sum(b - a for a, b in spans) == stop - start < size
    # Not of a subclass, which may keep its weight in another form.
    divisible = together and type(module) in (torch.nn.Linear, Conv1D)
    return Rows(start, stop, size) if divisible else None


def product(module: torch.nn.Linear | Conv1D, rows: Rows, x: torch.Tensor) -> torch.Tensor:
    """Some of a linear's output [..., O], zeros in place of the rest."""
    if rows.start == rows.stop:
        return x.new_zeros(*x.shape[:-1], rows.all)
    own, weight, bias = slice(rows.start, rows.stop), module.weight, module.bias
    weight = weight.T if isinstance(module, Conv1D) else weight
    y = torch.nn.functional.linear(x, weight[own], None if bias is None else bias[own])
    before, after = (y.new_zeros(*y.shape[:-1], n) for n in (rows.start, rows.all - rows.stop))
    return torch.cat([before, y, after], -1)  # a padding's backward would copy
