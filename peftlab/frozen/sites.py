"""The linear, sublayer, weights and block sites: `forward` of a module's instance, overridden.

Modules stay where they are, so names, `state_dict`, `save_pretrained` and tied weights are those of
the plain model. Each override asks the current forward what the owners of its rows want here; where
nobody wants anything, the plain forward runs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from peftlab.bases.shapes import Linear
from peftlab.edits import LinearEdit, Sublayer
from peftlab.frozen import few_rows, fused, quantised
from peftlab.frozen.batch import Span
from peftlab.frozen.forward import ForwardContext, current_forward
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
        self.norm = fused.rms_norm(module)
        self.few = few_rows.forward(module)
        self.axis = TokenAxis()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        context = current_forward()
        if context is None:
            return self.plain(*args, **kwargs)
        if args and not self.head and not context.narrowed:
            self.axis.of(args[0], len(context.batch.ids))
        edits = context.batch.sites.linear.get(self.path) if self.linear else None
        if not edits:
            return self._with_weights(context, *args, **kwargs)
        return self._with_edits(context, edits, args[0])

    def _with_edits(
        self, context: ForwardContext, edits: Sequence[tuple[int, LinearEdit]], x: torch.Tensor
    ) -> torch.Tensor:
        spans = self._spans(context)
        few, many = ([], edits) if self.head else context.divide(edits)
        placed = [(*spans[owner], edit) for owner, edit in many]
        run = partial(self._with_weights, context)
        if not few:
            return _edited_linear(x, placed, run, self.module, self.path)
        bank, placements = context.options.bank, context.running.placements
        assert bank is not None
        scaled = bank.scale_inputs(placements, self.path, few, x)
        y = _edited_linear(scaled, placed, run, self.module, self.path)
        bias = getattr(self.module, "bias", None)
        return bank.change_outputs(placements, self.path, few, x, y, bias)

    def _with_weights(self, context: ForwardContext, *args: Any, **kwargs: Any) -> Any:
        wanted: dict[int, dict[str, torch.Tensor]] = {}
        for attribute, name in self.names.items():
            for owner, tensor in context.batch.sites.weights.get(name, ()):
                wanted.setdefault(owner, {})[attribute] = tensor
        if not wanted:
            return self._forward(context)(*args, **kwargs)
        if not self.head and args[0].dim() < 4 and _biases_alone(context, self.module, wanted):
            out = self._forward(context)(*args, **kwargs)
            return _shifted(context, self.path, self.module, wanted, out)
        spans = self._spans(context)
        if len(spans) == 1:
            return self._forward(context, *wanted.values())(*args, **kwargs)
        size, axis, pieces = max(stop for _, stop in spans.values()), self.axis, []
        for wanting, start, stop in _runs(spans, wanted):
            own = [axis.rows(x, size, start, stop) for x in args]
            named = {key: axis.rows(x, size, start, stop) for key, x in kwargs.items()}
            tensors = None if wanting is None else wanted[wanting]
            pieces.append(self._forward(context, tensors)(*own, **named))
        return _joined(pieces, axis.of(args[0], size))

    def _forward(
        self, context: ForwardContext, tensors: dict[str, torch.Tensor] | None = None
    ) -> Forward:
        """The module's own, with other parameters where some are given, and of what is used."""
        rows = self.used.by(context)
        if rows is not None:
            return partial(product, _twin(self.module, tensors or {}), rows)
        if self.norm is not None and context.options.fast:
            return partial(self._norm, tensors or {})
        if self.few is not None and context.options.fast and not tensors:
            return self.few
        return self._plain(tensors)

    def _plain(self, tensors: dict[str, torch.Tensor] | None) -> Forward:
        return _with_parameters(self.module, tensors) if tensors else self.plain

    def _norm(self, tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """The fused norm, but for states in a lower format (autocast): those round in between."""
        if self.norm is None or x.dtype != torch.float32:
            return self._plain(tensors)(x)  # type: ignore[no-any-return]
        own = {"weight": self.module.get_parameter("weight"), **_as_kept(self.module, tensors)}
        return self.norm(x, **own)

    def _spans(self, context: ForwardContext) -> Mapping[int, Span]:
        return context.batch.kept_spans if self.head else context.running.spans


def edit_sublayer(
    module: torch.nn.Module, entry: torch.nn.Module, block: int, which: Sublayer
) -> None:
    """Open the sublayer site on a module's output.

    Args:
        entry: the module whose input is the sublayer's input (OPT's feed-forward is two modules).
    """
    plain: Forward = module.forward
    fused_form = fused.rotary_attention if which == "attention" else fused.gated_feed_forward
    fast = fused_form(module) or plain
    split = entry is not module

    def forward(*args: Any, **kwargs: Any) -> Any:
        context = current_forward()
        if context is None:
            return plain(*args, **kwargs)
        if which == "attention" and context.options.angles_of == block:
            context.angles = kwargs.get("position_embeddings")
            raise Kept
        if which == "attention" and context.options.project is not None:
            args, kwargs = _with_input(context.options.project[1], args, kwargs)
        edits = context.batch.sites.sublayer.get((block, which))
        out = (fast if context.options.fast else plain)(*args, **kwargs)
        if not edits:
            return out
        hidden = out[0] if isinstance(out, tuple) else out
        given = args[0] if args else kwargs["hidden_states"]
        few, many = context.divide(edits)
        if few:
            bank, placements = context.options.bank, context.running.placements
            assert bank is not None
            hidden = bank.sublayer(placements, (block, which), few, given, hidden)
        dim, pieces = row_dim(hidden), []
        for owner, edit in many:
            start, stop = context.running.spans[owner]
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
    context: ForwardContext, module: torch.nn.Module, wanted: dict[int, dict[str, torch.Tensor]]
) -> bool:
    """Whether all that want weights here want a shift at the end, of rows of no gradients."""
    if context.options.bank is None or torch.is_grad_enabled():
        return False
    shifts = isinstance(module, torch.nn.Linear | torch.nn.LayerNorm | Conv1D)
    return shifts and all(own.keys() == {"bias"} for own in wanted.values())


def _shifted(
    context: ForwardContext,
    path: str,
    module: torch.nn.Module,
    wanted: dict[int, dict[str, torch.Tensor]],
    out: torch.Tensor,
) -> torch.Tensor:
    """A leaf's output with other biases in its owners' rows, changed in place."""
    bias, dim = module.get_parameter("bias"), row_dim(out)
    few, many = context.divide([(owner, own["bias"]) for owner, own in wanted.items()])
    for owner, own in many:
        part(out, dim, *context.running.spans[owner]).add_(own.to(out.dtype) - bias)
    if not few:
        return out
    assert context.options.bank is not None
    return context.options.bank.shift_outputs(context.running.placements, path, few, out, bias)


def _runs(
    spans: Mapping[int, Span], wanted: Container[int]
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
        context = current_forward()
        if context is None or not context.options.fast:
            return plain(x)  # type: ignore[no-any-return]
        return torch.nn.functional.gelu(x, approximate="tanh")

    module.forward = forward  # type: ignore[method-assign]


def edit_block(module: torch.nn.Module, index: int, last: bool) -> None:
    """Let a block be skipped, resumed at, have its input kept, or be recomputed in backward.

    The last one runs on the kept tokens only, where that is less work.
    """
    plain: Forward = module.forward

    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        context = current_forward()
        if context is None:
            return plain(hidden, *args, **kwargs)
        options = context.options
        if context.entry is not None:
            first, states = context.entry
            if index < first:
                return hidden
            hidden = states if index == first else hidden
        if options.keep_input_of == index:
            context.kept_input = hidden
            if options.stop_after_keeping:
                raise Kept
        narrows = last and context.narrows and not context.to_attention
        block = partial(on_kept_tokens, context, plain) if narrows else plain
        if options.checkpoint and torch.is_grad_enabled():

            def run(states: torch.Tensor) -> Any:
                # On CUDA backward runs in a thread of its own, where no forward is current.
                with context.active():
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
                context = current_forward()
                assert context is not None
                source = edit.dropout(source, path, context.dropout_keys[start:stop])
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
    twin.__dict__["_parameters"] = {**own, **_as_kept(module, tensors)}
    return twin


def _as_kept(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Other parameters of a module, whole and in the format of its own."""
    own = module.__dict__["_parameters"]
    return {name: whole(tensor).to(own[name].dtype) for name, tensor in tensors.items()}
