"""Scaled rotary positions of GGUF files, which transformers leaves out when it reads one.

Llama 3.1 and later scale them (Llama 3 herd, arXiv:2407.21783; transformers' rope type `llama3`);
llama.cpp writes the resulting factors by frequency, `rope_freqs.weight`, and not the settings that
they come from. What is left out silently makes another model of it, and is refused here.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from peftlab.bases import gguf
from peftlab.errors import InputError

FACTORS = "rope_freqs.weight"
_LONG = ("rope_factors_long.weight", "rope_factors_short.weight")
# Of every release from 3.1 to 3.3; only the factor differs.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def completed(header: gguf.Header, config: PretrainedConfig) -> PretrainedConfig:
    """The configuration with what the file says of rotary positions beside their base.

    Raises:
        InputError: a scaling that the configuration cannot be given.
    """
    scaling = header.values.get(f"{header.architecture}.rope.scaling.type", "none")
    if set(_kinds(config.to_dict().get("rope_parameters"))) - {"default"}:
        return config  # transformers has read it
    if scaling not in ("", "none") or any(name in header.tensors for name in _LONG):
        raise _refusal(header, scaling if scaling not in ("", "none") else _LONG[0])
    if FACTORS not in header.tensors:
        return config
    factors = torch.from_numpy(gguf.numbers(header.path, FACTORS))
    found = copy.deepcopy(config)
    found.rope_parameters = {
        **config.rope_parameters,
        "rope_type": "llama3",
        "factor": float(factors.max()),
        **_LLAMA3,
    }
    scaled, plain = _frequencies(found, "llama3"), _frequencies(config, None)
    if factors.shape != plain.shape or not torch.allclose(plain / factors, scaled, rtol=1e-4):
        raise _refusal(header, FACTORS)
    return found


def _kinds(rope: Any) -> list[str]:
    """The rope type, or those of each kind of layer."""
    if not isinstance(rope, dict):
        return []
    if "rope_type" in rope:
        return [str(rope["rope_type"])]
    return [kind for each in rope.values() for kind in _kinds(each)]


def _frequencies(config: PretrainedConfig, kind: str | None) -> torch.Tensor:
    """Inverse frequencies [half a head's width]."""
    if kind is not None:
        scaled: torch.Tensor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))[0]
        return scaled
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    powers = torch.arange(0, width, 2, dtype=torch.float32) / width
    return 1.0 / config.rope_parameters["rope_theta"] ** powers


def _refusal(header: gguf.Header, what: str) -> InputError:
    return InputError(
        f"{header.path} scales its rotary positions ({what}), which transformers leaves out when "
        f"it reads a GGUF file of {header.architecture}: it would be another model. Take the "
        "model's folder or hub id with safetensors"
    )
