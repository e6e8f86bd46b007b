"""Many owners with few tokens each: their edits stacked in slots, one batched matmul a site.

While decoding, a batch holds one token of each of many owners, and a loop over owners costs more
than the model itself. Here each site has tables whose slots hold the owners' tensors, padded with
zeros to one size; an owner's tensors stay in their slot from step to step until another owner needs
it. Owners never share a matmul, so what is not a number in one of them stays there.

Legend: N packed tokens, S slots that a call spans, k most tokens of one owner, n tokens of all of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch

from peftlab.edits import Bottleneck, KeysValues, LinearEdit
from peftlab.frozen.placements import Placement, Placements

Tensors = tuple[torch.Tensor, ...]


class Table:
    """Several owners' tensors of one site; `tensors[i]` is [slots, …] for the i-th of each."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []
        self._parts: dict[tuple[int, int], list[torch.Tensor]] = {}
        self._held: list[object] = []  # by slot; held, so that no other object gets its id
        self._slots: dict[int, int] = {}

    def place(
        self, items: Sequence[object], make: Callable[[Any], Tensors], dtype: torch.dtype
    ) -> list[int]:
        """The slots of these edits; those that have none yet get one."""
        missing = [item for item in items if id(item) not in self._slots]
        if missing:
            current = {id(item) for item in items}
            free = [slot for slot, held in enumerate(self._held) if id(held) not in current]
            for i, item in enumerate(missing):
                slot = free[i] if i < len(free) else len(self._held)
                self._put(slot, item, [tensor.to(dtype) for tensor in make(item)])
        return [self._slots[id(item)] for item in items]

    def part(self, at: Placement) -> list[torch.Tensor]:
        """The slots in use of each tensor; views, which stay right while slots are filled anew."""
        key = (at.first, at.count)
        if key not in self._parts:
            self._parts[key] = [t[at.first : at.first + at.count] for t in self.tensors]
        return self._parts[key]

    def _put(self, slot: int, item: object, tensors: list[torch.Tensor]) -> None:
        if slot == len(self._held):
            self._held.append(None)
        else:
            del self._slots[id(self._held[slot])]
        self._held[slot], self._slots[id(item)] = item, slot
        if not self.tensors:
            self.tensors = [tensor.new_zeros(1, *tensor.shape) for tensor in tensors]
        for i, tensor in enumerate(tensors):
            table = _grown(self.tensors[i], slot, tensor.shape)
            if table is not self.tensors[i]:
                self.tensors[i] = table
                self._parts.clear()
            table[slot].zero_()
            corner = tuple(slice(size) for size in tensor.shape)
            table[slot][corner] = tensor


def _grown(table: torch.Tensor, slot: int, shape: torch.Size) -> torch.Tensor:
    """The table, or a larger one with the same contents."""
    slots = len(table) if slot < len(table) else max(slot + 1, 2 * len(table))
    size = (slots, *(max(a, b) for a, b in zip(table.shape[1:], shape, strict=True)))
    if size == tuple(table.shape):
        return table
    larger = table.new_zeros(size)
    larger[tuple(slice(length) for length in table.shape)] = table
    return larger


class Bank:
    """The tables of all sites of one model."""

    def __init__(self) -> None:
        self._tables: dict[Hashable, Table] = {}

    def _placed(
        self,
        placements: Placements,
        site: Hashable,
        wanted: Sequence[tuple[int, Any]],
        make: Callable[[Any], Tensors],
        dtype: torch.dtype,
    ) -> tuple[Placement, Table]:
        table = self._tables.get(site)
        if table is None:
            table = self._tables[site] = Table()
        slots = table.place([item for _, item in wanted], make, dtype)
        return placements.of([owner for owner, _ in wanted], slots), table

    def scale_inputs(
        self,
        placements: Placements,
        path: str,
        wanted: Sequence[tuple[int, LinearEdit]],
        x: torch.Tensor,
    ) -> torch.Tensor:
        """x [..., in] with the rows of owners that scale a linear's input scaled."""
        wanted = [(owner, edit) for owner, edit in wanted if edit.in_scale is not None]
        if not wanted:
            return x
        at, table = self._placed(placements, (path, "in"), wanted, _in_scale, x.dtype)
        flat = x.flatten(0, -2)
        own = at.own(flat) * table.tensors[0].index_select(0, at.slots)
        scaled = flat.clone()
        at.put(scaled, own)
        return scaled.view(x.shape)

    def change_outputs(
        self,
        placements: Placements,
        path: str,
        wanted: Sequence[tuple[int, LinearEdit]],
        x: torch.Tensor,
        y: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """A linear's output y [..., out], changed in place; x [..., in]: its input unscaled."""
        shape, x, y = y.shape, x.flatten(0, -2), y.flatten(0, -2)
        affine = [
            (owner, e) for owner, e in wanted if e.out_scale is not None or e.bias is not None
        ]
        low = [(owner, e) for owner, e in wanted if e.down is not None]
        if affine:

            def make(edit: LinearEdit) -> Tensors:
                return _affine(edit, y.shape[-1], bias)

            at, table = self._placed(placements, (path, "affine"), affine, make, y.dtype)
            scale, shift = (tensor.index_select(0, at.slots) for tensor in table.tensors)
            at.put(y, torch.addcmul(shift, at.own(y), scale))
        if low:
            at, table = self._placed(placements, (path, "low"), low, _low_rank, x.dtype)
            down, up = table.part(at)
            at.add(y, at.take(torch.bmm(torch.bmm(at.pad(x), down), up)))
        return y.view(shape)

    def shift_outputs(
        self,
        placements: Placements,
        name: str,
        wanted: Sequence[tuple[int, torch.Tensor]],
        y: torch.Tensor,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        """Other biases in place of a leaf's own, in its output y [..., out], changed in place."""
        at, table = self._placed(
            placements, (name, "bias"), wanted, lambda own: (own - bias,), y.dtype
        )
        flat = y.flatten(0, -2)
        at.add(flat, table.tensors[0].index_select(0, at.slots))
        return flat.view(y.shape)

    def sublayer(
        self,
        placements: Placements,
        place: Hashable,
        wanted: Sequence[tuple[int, Bottleneck]],
        given: torch.Tensor,
        hidden: torch.Tensor,
    ) -> torch.Tensor:
        """The sublayer's output [..., D] with all owners' bottlenecks; `given` is its input."""
        shape, given, hidden = hidden.shape, given.flatten(0, -2), hidden.flatten(0, -2)
        kinds: dict[tuple[str, bool, bool], list[tuple[int, Bottleneck]]] = {}
        for owner, edit in wanted:
            kind = (edit.activation, edit.parallel, edit.norm is not None)
            kinds.setdefault(kind, []).append((owner, edit))
        out = hidden.clone()
        for (activation, parallel, normed), members in kinds.items():
            at, table = self._placed(
                placements,
                (place, activation, parallel, normed),
                members,
                _bottleneck,
                hidden.dtype,
            )
            x = at.pad(given if parallel else hidden)
            down, down_bias, up, up_bias, weight, shift = table.part(at)
            if normed:
                x = torch.nn.functional.layer_norm(x, x.shape[-1:])
                x = torch.addcmul(shift, x, weight)
            inner = torch.baddbmm(down_bias, x, down)
            inner = getattr(torch.nn.functional, activation, torch.tanh)(inner)
            at.add(out, at.take(torch.baddbmm(up_bias, inner, up)))
        return out.view(shape)

    def gated(
        self,
        placements: Placements,
        block: int,
        wanted: Sequence[tuple[int, KeysValues]],
        q: torch.Tensor,
        out: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """out [H, N, hd] with gate · softmax(q kᵀ) v of each owner's keys and values added."""
        at, table = self._placed(
            placements, (block, "gated"), wanted, lambda kv: _gated(kv, len(q)), q.dtype
        )
        keys, values, gates, seen = table.part(at)
        heads, size = q.shape[0], q.shape[-1]
        queries = at.pad(q.transpose(0, 1).flatten(1)).unflatten(-1, (heads, size))
        extra = torch.nn.functional.scaled_dot_product_attention(
            queries.transpose(1, 2), keys, values, seen > 0,
            scale=scale, enable_gqa=heads != keys.shape[1],
        )  # fmt: skip
        extra = (extra * gates).transpose(1, 2).flatten(2)
        attended = at.take(extra).unflatten(-1, (heads, size)).transpose(0, 1)
        return out.index_add(1, at.rows, attended)


def _in_scale(edit: LinearEdit) -> Tensors:
    assert edit.in_scale is not None
    return (edit.in_scale,)


def _affine(edit: LinearEdit, size: int, bias: torch.Tensor | None) -> Tensors:
    """out_scale ⊙ (y − b) + b + bias as scale ⊙ y + shift, each [out]."""
    one = edit.out_scale if edit.out_scale is not None else edit.bias
    assert one is not None
    scale = one.new_ones(size) if edit.out_scale is None else edit.out_scale
    shift = one.new_zeros(size) if edit.bias is None else edit.bias
    return scale, shift if bias is None else shift + (1 - scale) * bias


def _low_rank(edit: LinearEdit) -> Tensors:
    """down as [in, r] and up, scaled with the output, as [r, out]."""
    assert edit.down is not None and edit.up is not None
    up = edit.up if edit.out_scale is None else edit.out_scale[:, None] * edit.up
    return edit.down.T, up.T


def _bottleneck(edit: Bottleneck) -> Tensors:
    """down [D, m], its bias [1, m], scale · up [m, D], its bias [1, D], the norm's pair [1, D]."""
    size, width = edit.down.shape
    new = edit.down.new_zeros
    down_bias = new(size) if edit.down_bias is None else edit.down_bias
    up_bias = new(width) if edit.up_bias is None else edit.scale * edit.up_bias
    weight, shift = edit.norm or (new(width), new(width))
    up = edit.scale * edit.up.T
    return edit.down.T, down_bias[None], up, up_bias[None], weight[None], shift[None]


def _gated(edit: KeysValues, heads: int) -> Tensors:
    """Keys and values [H_kv, P, hd], the gate [H, 1, 1], and a one for each of P keys [1, 1, P].

    Padding brings keys of zero, which count in a softmax; the ones tell them apart.
    """
    assert edit.gate is not None
    seen = edit.keys.new_ones(1, 1, edit.keys.shape[-2])
    return edit.keys, edit.values, edit.gate.expand(heads)[:, None, None], seen
