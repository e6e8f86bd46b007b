"""Linear maps kept in 8 or 4 bits: bitsandbytes stores them, and they are computed with here.

int8 has one scale a row (Dettmers et al. 2022, arXiv:2208.07339, section 2.1, without outliers);
nf4 is NormalFloat in blocks of 64 whose scales are quantised again (Dettmers et al. 2023,
arXiv:2305.14314, section 3). Both are of the weights alone: a map is that of the dequantised weight
in the format of its input, forward and backward, so a row does not depend on its neighbours.

bitsandbytes' own forwards are not used. In eval mode, which a frozen base is always in, that of
8 bits rounds the activations too, and that of 4 bits rearranges the weight on some CPUs, after
which gradients are lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from peftlab.bases.number_formats import QUANTISED
from peftlab.errors import InputError

_CLASSES = ("Params4bit", "Int8Params")
_FORMATS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def library() -> Any:
    """bitsandbytes.

    Raises:
        InputError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it uses of torch
            import bitsandbytes
    except ImportError as error:
        raise InputError(
            f"a base in {' or '.join(QUANTISED)} needs bitsandbytes ({error}): "
            "pip install 'peftlab[quantised]'"
        ) from error
    return bitsandbytes


def loading_options(name: str, rest: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    """What `from_pretrained` is given to load a base in a quantised format, shard by shard."""
    library()
    from transformers import BitsAndBytesConfig

    config = (
        BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
        if name == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=rest,
        )
    )
    return {"quantization_config": config, "dtype": rest, "device_map": {"": str(device)}}


def is_quantised(module: torch.nn.Module) -> bool:
    """Whether the module is a linear map whose weight bitsandbytes keeps."""
    return type(getattr(module, "weight", None)).__name__ in _CLASSES


def format_of(model: PreTrainedModel) -> str:
    """fp32, bf16, fp16, int8, nf4, or what a checkpoint that came quantised has."""
    for module in model.modules():
        if is_quantised(module):
            state = getattr(module.weight, "quant_state", None)
            return "int8" if state is None else str(state.quant_type)  # type: ignore[union-attr]
    return _FORMATS.get(model.dtype, str(model.dtype))


def open_linears(model: PreTrainedModel) -> None:
    """Let every quantised map of a model compute with its dequantised weight."""
    for module in model.modules():
        if is_quantised(module):
            _open(module)


def _open(module: torch.nn.Module) -> None:
    def weight(dtype: torch.dtype) -> torch.Tensor:
        return _matrix(module).to(dtype)

    def forward(x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _Linear.apply(x, module.bias, weight)
        return product

    module.forward = forward  # type: ignore[method-assign]


class _Linear(torch.autograd.Function):
    """x Wᵀ + b. W is made twice from what is stored, so that backward need not keep it."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        weight: Callable[[torch.dtype], torch.Tensor],
    ) -> torch.Tensor:
        ctx.weight, ctx.dtype = weight, x.dtype
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        bias = None if bias is None else bias.to(x.dtype)
        return torch.nn.functional.linear(x, weight(x.dtype), bias)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, upstream: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        needs_x, needs_bias, _ = ctx.needs_input_grad
        x = (upstream @ ctx.weight(upstream.dtype)).to(ctx.dtype) if needs_x else None
        return x, upstream.flatten(0, -2).sum(0) if needs_bias else None, None


def _matrix(module: torch.nn.Module) -> torch.Tensor:
    """The dequantised weight [out, in]."""
    weight: Any = module.weight
    functional = library().functional
    dequantised: torch.Tensor = (
        functional.dequantize_4bit(weight.data, weight.quant_state)
        if hasattr(weight, "quant_state")
        else functional.int8_vectorwise_dequant(weight.data, weight.SCB)
    )
    return dequantised


def _input_first(module: torch.nn.Module) -> bool:
    """GPT-2's Conv1D keeps [in, out]; quantised, it is stored as [out, in] like all others."""
    return getattr(module, "source_cls", None) is Conv1D


def with_parameters(
    module: torch.nn.Module, tensors: dict[str, torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The forward of a quantised map with a weight, a bias, or both replaced."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        bias: Any = tensors.get("bias", module.bias)
        bias = None if bias is None else bias.to(x.dtype)
        weight = tensors.get("weight")
        if weight is None:
            product: torch.Tensor = _Linear.apply(x, bias, lambda d: _matrix(module).to(d))
            return product
        weight = weight.T if _input_first(module) else weight
        return torch.nn.functional.linear(x, weight.to(x.dtype), bias)

    return forward


def whole(model: torch.nn.Module, name: str) -> torch.Tensor:
    """A parameter by its name, as the plain model has it: dequantised, in the plain layout."""
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    if attribute != "weight" or not is_quantised(module):
        return model.get_parameter(name).detach()
    matrix = _matrix(module)
    return matrix.T if _input_first(module) else matrix


def plain_shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Every parameter's shape in the plain model, whatever it is stored as."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for path, module in model.named_modules():
        if is_quantised(module):
            size = (module.out_features, module.in_features)
            shapes[f"{path}.weight"] = size[::-1] if _input_first(module) else size  # type: ignore[assignment]
    return shapes


def stored_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Everything that the weights are made of: parameters as stored, and the scales beside them."""
    yield from model.named_parameters()
    for path, module in model.named_modules():
        if not is_quantised(module):
            continue
        weight: Any = module.weight
        state = getattr(weight, "quant_state", None)
        scales = {"SCB": weight.SCB} if state is None else state.as_dict(packed=True)
        for name, tensor in scales.items():
            yield f"{path}.weight.{name}", tensor
