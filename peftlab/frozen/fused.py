"""Parts of llama-like blocks in fewer passes over memory, with a backward of their own.

Norms, rotary embeddings and gated activations are a tenth of a block's operations at best, but
written as transformers writes them they read and write memory some thirty times, and keep what
backward could make again. Each part here is used where a probe, on a small copy with random
numbers, shows that it computes what the family's own code does; any other family keeps its own.

Legend: N packed tokens, D hidden size, F feed-forward size, H heads, hd head size.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from transformers.activations import GELUTanh

from peftlab.frozen.rotary import ROTARY, rotary_function

Forward = Callable[..., torch.Tensor]

_FEED_FORWARD = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_EPSILONS = ("variance_epsilon", "eps")


# -- gated activations -------------------------------------------------------------------------


class _Gated(torch.autograd.Function):
    """act(gate) ⊙ up of [..., F] each; act(gate) is made again in backward and not kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, tanh: bool) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(gate, up)
        ctx.tanh = tanh
        return _activation(gate, tanh).mul_(up)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        gate, up = ctx.saved_tensors
        before = slope * up
        if ctx.tanh:
            before = torch.ops.aten.gelu_backward(before, gate, approximate="tanh")
        else:
            before = torch.ops.aten.silu_backward(before, gate)
        return before, _activation(gate, ctx.tanh).mul_(slope), None


def _activation(x: torch.Tensor, tanh: bool) -> torch.Tensor:
    functional = torch.nn.functional
    return functional.gelu(x, approximate="tanh") if tanh else functional.silu(x)


def gated_feed_forward(module: torch.nn.Module) -> Forward | None:
    """`down_proj(act_fn(gate_proj(x)) * up_proj(x))`, where that is what the module computes."""
    children = dict(module.named_children())
    if children.keys() != _FEED_FORWARD:
        return None
    tanh = isinstance(children["act_fn"], GELUTanh)
    if not tanh and not _is_silu(children["act_fn"]):
        return None
    generator = torch.Generator().manual_seed(0)
    small = copy.copy(module)
    small.__dict__["_modules"] = {
        "gate_proj": _linear(4, 6, generator),
        "up_proj": _linear(4, 6, generator),
        "down_proj": _linear(6, 4, generator),
        "act_fn": children["act_fn"],
    }
    # Large ones too: some families clamp what comes out of a linear.
    x = torch.randn(3, 4, generator=generator) * torch.tensor([[1.0], [30.0], [1e3]])
    if not _agree(lambda: type(module).forward(small, x), lambda: _feed_forward(small, tanh, x)):
        return None
    return partial(_feed_forward, module, tanh)


def _feed_forward(module: Any, tanh: bool, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = module.down_proj(_Gated.apply(module.gate_proj(x), module.up_proj(x), tanh))
    return out


def _is_silu(module: torch.nn.Module) -> bool:
    x = torch.linspace(-3, 3, 7)
    return _agree(lambda: module(x), lambda: torch.nn.functional.silu(x))


# -- root mean square norms --------------------------------------------------------------------


class _RMSNorm(torch.autograd.Function):
    """x / √(mean(x²) + ε) ⊙ (offset + weight) over the last dimension, in float32.

    Zhang & Sennrich 2019, arXiv:1910.07467, section 4.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float, offset: float
    ) -> torch.Tensor:
        # As transformers does it, bit for bit; a norm of vectors would round once more.
        inverse = x.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        ctx.offset = offset
        return (x * inverse).mul_(weight + offset if offset else weight)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, slope: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        x, inverse, weight = ctx.saved_tensors
        before = own = None
        if ctx.needs_input_grad[1]:
            own = (slope * x).mul_(inverse).flatten(0, -2).sum(0)
        if ctx.needs_input_grad[0]:
            before = slope * (weight + ctx.offset if ctx.offset else weight)
            along = (before * x).sum(-1, keepdim=True)
            along.mul_(inverse).mul_(inverse).mul_(inverse).div_(-x.shape[-1])
            before = before.mul_(inverse).addcmul_(x, along)
        return before, own, None, None


def rms_norm(module: torch.nn.Module) -> Forward | None:
    """The norm of a module as a function of x [..., D] and a weight [D], where it is one.

    Of weights in float32 only: transformers rounds in between in any other format.
    """
    epsilon = next((getattr(module, name) for name in _EPSILONS if hasattr(module, name)), None)
    parameters = dict(module.named_parameters())
    if parameters.keys() != {"weight"} or not isinstance(epsilon, float):
        return None
    if parameters["weight"].dtype != torch.float32:
        return None
    generator = torch.Generator().manual_seed(0)
    small = copy.copy(module)
    weight = torch.randn(4, generator=generator)
    small.__dict__["_parameters"] = {"weight": torch.nn.Parameter(weight, requires_grad=False)}
    # Of the size of √ε too, where it matters how ε is added.
    x = torch.randn(3, 4, generator=generator) * torch.tensor([[1.0], [epsilon**0.5], [1e3]])
    for offset in (0.0, 1.0):
        own = partial(_RMSNorm.apply, x, weight, epsilon, offset)
        if _agree(lambda: type(module).forward(small, x), own):
            return partial(_norm, epsilon, offset)
    return None


def _norm(epsilon: float, offset: float, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _RMSNorm.apply(x, weight, epsilon, offset)
    return out


# -- rotary embeddings -------------------------------------------------------------------------


class _Rotated(torch.autograd.Function):
    """Halves (a, b) of the last dimension of [1, H, N, hd] become (ac − bs, bc + as).

    Su et al. 2021, arXiv:2104.09864, section 3.4.2, with halves in place of neighbours.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return _rotated(x, cos, sin)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(slope, cos, -sin).to(ctx.dtype), None, None


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    # Of both of its halves, which are alike, the first.
    cos, sin = cos[..., :half].unsqueeze(1), sin[..., :half].unsqueeze(1)
    out = torch.empty_like(x, dtype=torch.promote_types(x.dtype, cos.dtype))
    first, second = x[..., :half], x[..., half:]
    # Not with addcmul, which rounds once where the plain form rounds twice.
    torch.mul(first, cos, out=out[..., :half]).sub_(second * sin)
    torch.mul(second, cos, out=out[..., half:]).add_(first * sin)
    return out


def rotate(
    plain: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys [1, H, N, hd] at their positions; cos and sin [1, N, hd]."""
    if args or kwargs or cos.shape[-1] != q.shape[-1]:
        return plain(q, k, cos, sin, *args, **kwargs)
    return _Rotated.apply(q, cos, sin), _Rotated.apply(k, cos, sin)


def rotary_attention(module: torch.nn.Module) -> Forward | None:
    """The forward of an attention module with `rotate` in it, where its own does the same.

    The module's class and its file stay as they are: the function gets other globals.
    """
    own, plain = type(module).forward, rotary_function(module)
    if plain is None:
        return None
    generator = torch.Generator().manual_seed(0)
    q, k, angles = (torch.randn(1, n, 3, 4, generator=generator) for n in (2, 1, 1))
    angles = torch.cat([angles[:, 0, :, :2]] * 2, -1)
    cos, sin = angles.cos(), angles.sin()
    # Some families return what they were given in its own format, others promote it.
    for dtype in (torch.float32, torch.bfloat16):
        given = q.to(dtype), k.to(dtype)
        for at, x in enumerate(given):
            theirs, ours = partial(plain, *given, cos, sin), partial(_rotated, x, cos, sin)
            if not _agree(lambda at=at, theirs=theirs: theirs()[at], ours):  # type: ignore[misc]
                return None
    rotating = types.FunctionType(
        own.__code__,
        {**own.__globals__, ROTARY: partial(rotate, plain)},
        own.__name__,
        own.__defaults__,
        own.__closure__,
    )
    return types.MethodType(rotating, module)


# -- probes ------------------------------------------------------------------------------------


def _agree(theirs: Forward, ours: Forward) -> bool:
    """Whether both compute the same of a small input; what cannot be tried does not."""
    with torch.no_grad():
        try:
            expected, got = theirs(), ours()
            alike = (expected.shape, expected.dtype) == (got.shape, got.dtype)
            return alike and torch.allclose(expected, got, rtol=1e-5, atol=1e-6)
        except Exception:  # a family's code that wants more than the small copy has
            return False


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> torch.nn.Linear:
    """With random weights, of which the global stream of random numbers knows nothing."""
    made = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs, bias=False)
    with torch.no_grad():
        made.weight.normal_(generator=generator)
    return made
