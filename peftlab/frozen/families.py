"""Tiny random models of transformers' decoder families: which of them can be edited exactly?

No weights are downloaded. `compatibilities` runs the conformance check on each family, so its
answer is that of the transformers that is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from peftlab.frozen.conformance import UnsupportedModel
from peftlab.frozen.model import FrozenLM

_BASE: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_NO_GROUPS = ("gpt2", "gptj", "bloom", "falcon", "opt", "gpt_neox")
_SLIDING = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 16,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_EXTRA: dict[str, dict[str, Any]] = {
    "gpt2": {"activation_function": "gelu_new"},
    "helium": {"head_dim": 8},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, **_SLIDING},
    "gemma3_text": {"head_dim": 8, **_SLIDING},
    "mistral": {"sliding_window": 16},
    "phi3": {"sliding_window": 16},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gptj": {"rotary_dim": 4},
    "qwen3_moe": {**_EXPERTS, "head_dim": 8, "moe_intermediate_size": 24},
    "mixtral": {**_EXPERTS, "num_local_experts": 4},
    "olmoe": _EXPERTS,
}
REQUIRED = (
    "gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "opt", "gpt_neox", "olmo2",
    "smollm3",
)  # fmt: skip
WITH_EXPERTS = ("qwen3_moe", "mixtral", "olmoe")
OTHERS = (
    "cohere", "cohere2", "ernie4_5", "gemma", "gemma2", "glm", "glm4", "gpt_bigcode", "granite",
    "helium", "olmo", "olmo3", "phi", "seed_oss", "stablelm", "starcoder2",
    "bloom", "falcon", "gptj",
)  # fmt: skip


@dataclass(frozen=True)
class Compatibility:
    """What the conformance check says of a family: refused with the reason, or its gaps by site."""

    family: str
    refused: str | None
    gaps: dict[str, str]


def tiny(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of a family, its weights large enough that everything matters."""
    settings = {
        k: v for k, v in _BASE.items() if k != "num_key_value_heads" or family not in _NO_GROUPS
    }
    config = AutoConfig.for_model(family, **{**settings, **_EXTRA.get(family, {}), **changes})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        mean = 1.0 if "norm" in name or ".ln_" in name else 0.0
        spread = 0.25 if parameter.dim() > 1 else 0.1
        mean = mean if parameter.dim() == 1 else 0.0
        torch.nn.init.normal_(parameter, mean=mean, std=spread)
    return model


def compatibilities(
    families: Iterable[str] = (*REQUIRED, *WITH_EXPERTS, *OTHERS),
) -> list[Compatibility]:
    """Check a tiny model of each family."""
    logging.set_verbosity_error()
    return [_verdict(family) for family in families]


def _verdict(family: str) -> Compatibility:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checked = FrozenLM(tiny(family), name=family).conformance
    except UnsupportedModel as error:
        return Compatibility(family, str(error), {})
    except Exception as error:  # a family that this transformers lacks, or cannot make this small
        return Compatibility(family, f"no tiny model can be made of it: {error}", {})
    return Compatibility(family, None, {site: why for site, why in checked.sites.items() if why})
