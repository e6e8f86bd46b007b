"""Prompt tuning, P-tuning and prefix tuning in PEFT's layout: one tensor `prompt_embeddings`.

Prompts [P, D]. A prefix is [P, 2·L·Hkv·hd]: per position block by block the keys, then the values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftlab.errors import InputError
from peftlab.export.peft.folder import PeftFolder
from peftlab.methods.base import Method, State
from peftlab.methods.p_tuning import PTuning
from peftlab.methods.prefix_tuning import PrefixTuning
from peftlab.methods.prompt_tuning import PromptTuning
from peftlab.tasks.markup import Pseudo

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

Written = tuple[dict[str, Any], dict[str, torch.Tensor]]
_NAME = "prompt_embeddings"
_SIZES = {
    "num_virtual_tokens",
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
} | {"num_layers"}
_PROMPT = _SIZES | {
    "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_kwargs", "tokenizer_name_or_path",
}  # fmt: skip
_ENCODER = _SIZES | {
    "encoder_dropout", "encoder_hidden_size", "encoder_num_layers",
    "encoder_reparameterization_type",
}  # fmt: skip
_PREFIX = _SIZES | {"encoder_hidden_size", "init_weights", "prefix_projection"}


def write_prompt(adaptation: Adaptation, model: FrozenLM) -> Written:
    """Prompt tuning, or P-tuning with all its pseudo tokens first."""
    vectors = adaptation.state.tensors["prompt"]
    _check_leads(adaptation, len(vectors))
    config = _sizes(model, len(vectors), model.shape.heads, model.shape.hidden)
    method = adaptation.method
    if isinstance(method, PTuning):
        # The encoder's kind is for the record: in inference mode PEFT reads the vectors alone.
        kind = "LSTM" if method.encoder == "lstm" else "MLP"
        width = model.shape.hidden
        config |= {"encoder_reparameterization_type": kind, "encoder_hidden_size": width}
    else:
        config |= {"prompt_tuning_init": "RANDOM"}
    return config, {_NAME: vectors}


def _check_leads(adaptation: Adaptation, length: int) -> None:
    """Refuse pseudo tokens that PEFT could not place."""
    template = adaptation.method.template(adaptation.template, adaptation.state)
    context = template.markup.context
    if not context or context[0] != Pseudo(0, length) or template.pseudo_tokens != length:
        raise InputError(
            f"PEFT puts pseudo tokens before everything else, and this adaptation's text is "
            f"{template.text!r}. Train p_tuning with placement=first, or use the embedding-rows or "
            "vllm export, which keep their places."
        )


def write_prefix(adaptation: Adaptation, model: FrozenLM) -> Written:
    """The prefix itself; a reparametrisation is materialised in."""
    prefix = adaptation.state.tensors["prefix"]  # [L, 2, Hkv, P, hd]
    shape, length = model.shape, prefix.shape[3]
    config = _sizes(model, length, shape.kv_heads, shape.kv_heads * shape.head_dim)
    config |= {"prefix_projection": False, "encoder_hidden_size": shape.hidden}
    return config, {_NAME: prefix.permute(3, 0, 1, 2, 4).reshape(length, -1)}


def _sizes(model: FrozenLM, length: int, heads: int, width: int) -> dict[str, Any]:
    return {
        "num_virtual_tokens": length,
        "token_dim": width,
        "num_attention_heads": heads,
        "num_layers": model.shape.layers,
        "num_transformer_submodules": 1,
    }


def read_prompt(folder: PeftFolder) -> tuple[Method, State]:
    """PROMPT_TUNING as prompt_tuning."""
    folder.understand(_PROMPT)
    method = PromptTuning(length=_length(folder))
    return method, _vectors(folder, method)


def read_p_tuning(folder: PeftFolder) -> tuple[Method, State]:
    """P_TUNING as p_tuning without an encoder: PEFT drops the encoder when it saves."""
    folder.understand(_ENCODER)
    method = PTuning(length=_length(folder), placement="first", encoder="none")
    return method, _vectors(folder, method)


def read_prefix(folder: PeftFolder) -> tuple[Method, State]:
    """PREFIX_TUNING as prefix_tuning without a reparametrisation, which PEFT drops on saving."""
    folder.understand(_PREFIX)
    shape, length = folder.model.shape, _length(folder)
    method = PrefixTuning(length=length)
    folder.expect(_NAME, (length, 2 * shape.layers * shape.kv_heads * shape.head_dim))
    folder.settle(method)
    split = folder.take(_NAME).view(length, shape.layers, 2, shape.kv_heads, shape.head_dim)
    return method, State({"prefix": split.permute(1, 2, 3, 0, 4).contiguous()})


def _length(folder: PeftFolder) -> int:
    if folder.config.get("num_transformer_submodules") not in (None, 1):
        folder.problems.append("num_transformer_submodules is 2: the adapter of an encoder-decoder")
    length: int = folder.number("num_virtual_tokens")
    return length


def _vectors(folder: PeftFolder, method: PromptTuning | PTuning) -> State:
    folder.expect(_NAME, (_length(folder), folder.model.shape.hidden))
    folder.settle(method)
    return State({"prompt": folder.take(_NAME)})
