"""Tiny random models of many families, for tests: no weights are downloaded."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

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
_NO_GROUPS = ("gpt2", "gptj", "gpt_neo", "bloom", "falcon", "opt", "gpt_neox")
_SLIDING = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 16,
}
_EXTRA: dict[str, dict[str, Any]] = {
    "gpt2": {"activation_function": "gelu_new"},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, **_SLIDING},
    "gemma3_text": {"head_dim": 8, **_SLIDING},
    "mistral": {"sliding_window": 16},
    "phi3": {"sliding_window": 16},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gptj": {"rotary_dim": 4},
}
REQUIRED = (
    "gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "opt", "gpt_neox",
    "olmo2", "smollm3",
)  # fmt: skip


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
        torch.nn.init.normal_(parameter, mean=mean if parameter.dim() == 1 else 0.0, std=spread)
    return model


@lru_cache(maxsize=8)
def frozen(family: str) -> FrozenLM:
    """A tiny frozen model, shared by tests: nothing that a test does may change it."""
    return FrozenLM(tiny(family), name=family)
