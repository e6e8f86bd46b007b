"""Tiny GGUF files, written by ggml-org's own writer, of a model that transformers has too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

from tests.laws.world import tokenizer
from tests.models import tiny

END = "<|endoftext|>"  # which transformers adds to every tokenizer of this kind that lacks it
TEMPLATE = "{% for m in messages %}<bos>{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}"
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def model(**changes: Any) -> PreTrainedModel:
    """A tiny model with as many tokens as the files' tokenizer has."""
    return tiny("llama", vocab_size=121, **changes).eval()


def write(
    path: Path,
    made: PreTrainedModel,
    *,
    kind: str = "F32",
    architecture: str = "llama",
    pre: str = "gpt-2",
    with_tokenizer: bool = True,
    more: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
) -> Path:
    """A file of a model of the family llama, as llama.cpp's converter makes it.

    Args:
        kind: of ggml, in which matrices are kept.
        pre: how it says that text is split.
        more: adds metadata or tensors.
    """
    writer, config = gguf.GGUFWriter(path, architecture), made.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if kind == 'F32' else 'MOSTLY'}_{kind}"])
    if with_tokenizer:
        _add_tokenizer(writer, pre)
    for name, tensor in made.state_dict().items():
        _add_tensor(writer, name, tensor, config, gguf.GGMLQuantizationType[kind])
    more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, pre: str) -> None:
    own: dict[str, Any] = json.loads(tokenizer().backend_tokenizer.to_str())["model"]
    tokens = [*sorted(own["vocab"], key=own["vocab"].get), END]
    special = {"<pad>", "<bos>", "<eos>", END}
    kinds = [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in own["merges"]])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)


def _add_tensor(
    writer: gguf.GGUFWriter,
    name: str,
    tensor: torch.Tensor,
    config: Any,
    kind: gguf.GGMLQuantizationType,
) -> None:
    if name.endswith(("q_proj.weight", "k_proj.weight")):  # pairs of rotary dimensions side by side
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
    values = np.ascontiguousarray(tensor.detach().float().numpy())
    ours = name.removesuffix(".weight")
    block, _, inside = ours.removeprefix("model.layers.").partition(".")
    theirs = _NAMES.get(ours) or f"blk.{block}.{_NAMES[inside]}"
    if values.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(f"{theirs}.weight", values)
    else:
        writer.add_tensor(f"{theirs}.weight", gguf.quantize(values, kind), raw_dtype=kind)
