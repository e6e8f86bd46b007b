"""Tensors as llama.cpp has them: their names, their order of rows, their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.bases import gguf as bases
from peftlab.errors import InputError

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from peftlab.frozen.model import FrozenLM

_ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_MOST_F16 = 65_504.0
_TURNED = ("q_proj", "k_proj")


def architecture(model: FrozenLM) -> str:
    """In llama.cpp's words.

    Raises:
        InputError: the family is not written, or the package gguf is missing.
    """
    bases.check_library()
    family = model.shape.family
    if family not in _ARCHITECTURES:
        raise InputError(
            f"GGUF is written for {', '.join(_ARCHITECTURES)}, and {model.name} is {family}; use "
            "--to merged, and llama.cpp's convert_hf_to_gguf.py on what it writes"
        )
    return _ARCHITECTURES[family]


def names(model: FrozenLM) -> dict[str, str]:
    """What llama.cpp calls each of the parameters that a model of the family can have."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    known = {name: kind for kind, name in MODEL_ARCH_NAMES.items()}
    kind: MODEL_ARCH = known[architecture(model)]
    table = get_tensor_name_map(kind, model.shape.layers)
    named = {name: table.get_name(name, (".weight", ".bias")) for name in model.shape.parameters}
    if lacking := [name for name, found in named.items() if found is None]:
        raise InputError(f"llama.cpp has no name for {lacking[0]} of {model.name}")
    return {name: found for name, found in named.items() if found is not None}


def check(model: FrozenLM) -> None:
    """Refuse what llama.cpp would run otherwise than it is.

    Raises:
        InputError: says what.
    """
    config = model.model.config
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if config.hidden_act != "silu" or slides:
        what = "attends in sliding windows" if slides else f"has {config.hidden_act} in its MLP"
        raise InputError(
            f"{model.name} {what}, which llama.cpp does not do for {architecture(model)}; keep "
            "peftlab's own format or --to merged"
        )


def arranged(name: str, tensor: torch.Tensor, config: Any, model: FrozenLM) -> torch.Tensor:
    """A tensor's rows in llama.cpp's order, [out, …].

    In its layout of llama the two halves of a head's rotary dimensions alternate, where
    transformers has one after the other; `adapter`'s B has rows of the same kind.
    """
    module = name.rpartition(".")[0].rpartition(".")[2]
    if architecture(model) != "llama" or module not in _TURNED:
        return tensor
    heads = config.num_attention_heads if module == "q_proj" else config.num_key_value_heads
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def writer(path: Path, model: FrozenLM) -> GGUFWriter:
    """A file of the model's architecture that nothing stands in yet."""
    from gguf import GGUFWriter

    return GGUFWriter(path, architecture(model))


def add_tensor(writer: GGUFWriter, name: str, tensor: torch.Tensor, numbers: str = "f32") -> None:
    """A tensor in a format; vectors stay in fp32, as llama.cpp expects them."""
    from gguf import GGMLQuantizationType, quantize

    values = tensor.detach().float().cpu().contiguous().numpy()
    if numbers == "f16" and values.ndim > 1 and float(abs(values).max(initial=0)) > _MOST_F16:
        raise InputError(f"{name} has numbers beyond {_MOST_F16:,.0f}, f16's largest: take bf16")
    kind = GGMLQuantizationType[numbers.upper() if values.ndim > 1 else "F32"]
    writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)


def close(writer: GGUFWriter) -> None:
    """Write everything out."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
