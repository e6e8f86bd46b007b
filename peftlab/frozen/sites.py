"""The linear, sublayer, weights and block sites: `forward` of a module's instance, overridden.

Modules stay where they are, so names, `state_dict`, `save_pretrained` and tied weights are those of
the plain model. Each override asks the current batch what its owners want here; where nobody wants
anything, the plain forward runs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from peftlab.bases.shapes import Linear
from peftlab.edits import LinearEdit, Sublayer
from peftlab.frozen import quantised
from peftlab.frozen.batch import Batch, current_batch
from peftlab.frozen.narrowing import Used, on_kept_tokens, product
from peftlab.frozen.rows import TokenAxis, part, replace_rows, row_dim
from peftlab.frozen.sharding import whole

Forward = Callable[..., Any]


def edit_leaf(
    module: torch.nn.Module, path: str, names: dict[str, str], linear: Linear | None, head: bool
) -> None:
    """Open the weights site of a module that owns parameters, and the linear site where it is one.

    Args:
        names: the module's own parameter attribute -> the model's name of that parameter (tied
            weights have one name in two modules).
        linear: what it does in its block, if it is one of the block's linears.
        head: the module sees the kept tokens only.
    """
    leaf = _Leaf(module, path, names, linear, head)
    module.forward = leaf.forward  # type: ignore[method-assign]


class _Leaf:
    def __init__(
        self,
        module: torch.nn.Module,
        path: str,
        names: dict[str, str],
        linear: Linear | None,
        head: bool,
    ) -> None:
        self.module, self.path, self.names = module, path, names
        self.linear, self.head = linear is not None or head, head
        self.used = Used.of(module, linear)
        self.plain: Forward = module.forward
        self.axis = TokenAxis()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        batch = current_batch()
        if batch is None:
            return self.plain(*args, **kwargs)
        if args and not self.head and not batch.narrowed:
            self.axis.of(args[0], len(batch.ids))
        edits = batch.linear.get(self.path) if self.linear else None
        if not edits:
            return self._with_weights(batch, *args, **kwargs)
        return self._with_edits(batch, edits, args[0])

    def _with_edits(
        self, batch: Batch, edits: list[tuple[int, LinearEdit]], x: torch.Tensor
    ) -> torch.Tensor:
        spans = self._spans(batch)
        few, many = ([], edits) if self.head else batch.divide(edits)
        placed = [(*spans[owner], edit) for owner, edit in many]
        run = partial(self._with_weights, batch)
        if not few:
            return _edited_linear(x, placed, run, self.module, self.path)
        assert batch.bank is not None
        scaled = batch.bank.scale_inputs(batch, self.path, few, x)
        y = _edited_linear(scaled, placed, run, self.module, self.path)
        bias = getattr(self.module, "bias", None)
        return batch.bank.change_outputs(batch, self.path, few, x, y, bias)

    def _with_weights(self, batch: Batch, *args: Any, **kwargs: Any) -> Any:
        wanted: dict[int, dict[str, torch.Tensor]] = {}
        for attribute, name in self.names.items():
            for owner, tensor in batch.weights.get(name, ()):
                wanted.setdefault(owner, {})[attribute] = tensor
        if not wanted:
            return self._forward(batch)(*args, **kwargs)
        if not self.head and args[0].dim() < 4 and _biases_alone(batch, self.module, wanted):
            out = self._forward(batch)(*args, **kwargs)
            return _shifted(batch, self.path, self.module, wanted, out)
        spans = self._spans(batch)
        if len(spans) == 1:
            return self._forward(batch, *wanted.values())(*args, **kwargs)
        size, axis, pieces = max(stop for _, stop in spans.values()), self.axis, []
        for wanting, start, stop in _runs(spans, wanted):
            own = [axis.rows(x, size, start, stop) for x in args]
            named = {key: axis.rows(x, size, start, stop) for key, x in kwargs.items()}
            tensors = None if wanting is None else wanted[wanting]
            pieces.append(self._forward(batch, tensors)(*own, **named))
        return _joined(pieces, axis.of(args[0], size))

    def _forward(self, batch: Batch, tensors: dict[str, torch.Tensor] | None = None) -> Forward:
        """The module's own, with other parameters where some are given, and of what is used."""
        rows = self.used.by(batch)
        if rows is not None:
            return partial(product, _twin(self.module, tensors or {}), rows)
        return self.plain if tensors is None else _with_parameters(self.module, tensors)

    def _spans(self, batch: Batch) -> dict[int, tuple[int, int]]:
        return batch.kept_spans if self.head else batch.running_spans


def edit_sublayer(
    module: torch.nn.Module, entry: torch.nn.Module, block: int, which: Sublayer
) -> None:
    """Open the sublayer site on a module's output.

    Args:
        entry: the module whose input is the sublayer's input (OPT's feed-forward is two modules).
    """
    plain: Forward = module.forward
    split = entry is not module

    def forward(*args: Any, **kwargs: Any) -> Any:
        batch = current_batch()
        if batch is not None and which == "attention" and batch.attention_input is not None:
            args, kwargs = _with_input(batch.attention_input[1], args, kwargs)
        edits = batch.sublayer.get((block, which)) if batch is not None else None
        out = plain(*args, **kwargs)
        if batch is None or not edits:
            return out
        hidden = out[0] if isinstance(out, tuple) else out
        given = args[0] if args else kwargs["hidden_states"]
        few, many = batch.divide(edits)
        if few:
            assert batch.bank is not None
            hidden = batch.bank.sublayer(batch, (block, which), few, given, hidden)
        dim, pieces = row_dim(hidden), []
        for owner, edit in many:
            start, stop = batch.running_spans[owner]
            own = part(hidden, dim, start, stop)
            if edit.parallel and split:
                raise RuntimeError("a parallel bottleneck needs a feed-forward that is one module")
            source = part(given, dim, start, stop) if edit.parallel else own
            pieces.append((start, stop, own + edit.change(source)))
        hidden = replace_rows(hidden, pieces, dim)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    module.forward = forward  # type: ignore[method-assign]


def _joined(pieces: list[Any], dim: int) -> Any:
    """Rows side by side again; a router of experts gives several tensors for each."""
    if isinstance(pieces[0], tuple):
        return tuple(_joined(list(parts), dim) for parts in zip(*pieces, strict=True))
    return torch.cat(pieces, dim)


def _biases_alone(
    batch: Batch, module: torch.nn.Module, wanted: dict[int, dict[str, torch.Tensor]]
) -> bool:
    """Whether all that want weights here want a shift at the end, of rows of no gradients."""
    if batch.bank is None or torch.is_grad_enabled():
        return False
    shifts = isinstance(module, torch.nn.Linear | torch.nn.LayerNorm | Conv1D)
    return shifts and all(own.keys() == {"bias"} for own in wanted.values())


def _shifted(
    batch: Batch,
    path: str,
    module: torch.nn.Module,
    wanted: dict[int, dict[str, torch.Tensor]],
    out: torch.Tensor,
) -> torch.Tensor:
    """A leaf's output with other biases in its owners' rows, changed in place."""
    bias, dim = module.get_parameter("bias"), row_dim(out)
    few, many = batch.divide([(owner, own["bias"]) for owner, own in wanted.items()])
    for owner, own in many:
        part(out, dim, *batch.running_spans[owner]).add_(own.to(out.dtype) - bias)
    if not few:
        return out
    assert batch.bank is not None
    return batch.bank.shift_outputs(batch, path, few, out, bias)


def _runs(
    spans: dict[int, tuple[int, int]], wanted: Container[int]
) -> Iterator[tuple[int | None, int, int]]:
    """(owner, start, stop) of each owner that wants something, and (None, …) of all between."""
    at = 0
    for owner, (start, stop) in spans.items():
        if owner in wanted:
            if start > at:
                yield None, at, start
            yield owner, start, stop
            at = stop
    size = max(stop for _, stop in spans.values())
    if at < size:
        yield None, at, size


def _with_input(
    states: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (states, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": states}


class Kept(Exception):
    """Leaves a forward once the input that was asked for is kept."""


def edit_activation(module: torch.nn.Module) -> None:
    """Compute GELU's tanh form in one kernel; transformers' keeps five tensors for backward."""
    plain: Forward = module.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        batch = current_batch()
        if batch is None or not batch.fast:
            return plain(x)  # type: ignore[no-any-return]
        return torch.nn.functional.gelu(x, approximate="tanh")

    module.forward = forward  # type: ignore[method-assign]


def edit_block(module: torch.nn.Module, index: int, last: bool) -> None:
    """Let a block be skipped, resumed at, have its input kept, or be recomputed in backward.

    The last one runs on the kept tokens only, where that is less work.
    """
    plain: Forward = module.forward

    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        batch = current_batch()
        if batch is None:
            return plain(hidden, *args, **kwargs)
        if batch.resume is not None:
            first, states = batch.resume
            if index < first:
                return hidden
            hidden = states if index == first else hidden
        if batch.keep_input_of == index:
            batch.kept_input = hidden
            if batch.stop_after_keeping:
                raise Kept
        narrows = last and batch.narrows and not batch.stop_at_attention
        block = partial(on_kept_tokens, batch, plain) if narrows else plain
        if batch.checkpoint and torch.is_grad_enabled():

            def run(states: torch.Tensor) -> Any:
                # On CUDA backward runs in a thread of its own, where no batch is current.
                with batch.active():
                    return block(states, *args, **kwargs)

            return checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False)
        return block(hidden, *args, **kwargs)

    module.forward = forward  # type: ignore[method-assign]


def _edited_linear(
    x: torch.Tensor,
    placed: Iterable[tuple[int, int, LinearEdit]],
    plain: Forward,
    module: torch.nn.Module,
    path: str,
) -> torch.Tensor:
    """y = out_scale ⊙ (W(in_scale ⊙ x) + up·down·dropout(x)) + b + bias on each owner's rows."""
    dim, placed = row_dim(x), list(placed)
    scaled = [
        (start, stop, part(x, dim, start, stop) * edit.in_scale.to(x.dtype))
        for start, stop, edit in placed
        if edit.in_scale is not None
    ]
    y: torch.Tensor = plain(replace_rows(x, scaled, dim))
    bias = getattr(module, "bias", None)
    pieces = []
    for start, stop, edit in placed:
        own = part(y, dim, start, stop)
        if edit.out_scale is not None and bias is not None:
            own = own - bias
        if edit.down is not None and edit.up is not None:
            source = part(x, dim, start, stop)
            if edit.dropout is not None:
                batch = current_batch()
                assert batch is not None
                source = edit.dropout(source, path, batch.running_tokens[start:stop])
            functional = torch.nn.functional
            inner = functional.linear(source, edit.down.to(x.dtype))
            # One kernel adds the product in place of making it and adding it.
            flat = torch.addmm(own.flatten(0, -2), inner.flatten(0, -2), edit.up.to(x.dtype).T)
            own = flat.view(own.shape)
        if edit.out_scale is not None:
            own = own * edit.out_scale.to(own.dtype)
            own = own if bias is None else own + bias
        pieces.append((start, stop, own if edit.bias is None else own + edit.bias.to(own.dtype)))
    return replace_rows(y, pieces, dim, fresh=True)


def _with_parameters(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> Forward:
    """The class's forward with other parameters."""
    if quantised.is_quantised(module):
        return quantised.with_parameters(module, tensors)
    forward: Forward = _twin(module, tensors).forward
    return forward


def _twin(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A stand-in with other parameters and the class's forward; the module is untouched."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    twin.__dict__.pop("forward", None)
    own = module.__dict__["_parameters"]
    changed = {name: whole(tensor).to(own[name].dtype) for name, tensor in tensors.items()}
    twin.__dict__["_parameters"] = {**own, **changed}
    return twin
