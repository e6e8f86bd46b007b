"""The layouts themselves: one template a family, read off transformers 5.23's modelling code.

`template.py` explains the rows. Sizes and flags are the defaults of the family's configuration
class, since a config.json may leave out whatever equals them; the tests hold all three to
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from peftlab.bases.layouts.template import COMMON_KEYS, Family


def _attention(qkv: str = "", out: str = "") -> str:
    """Separate projections; `qkv` and `out` say when they have a bias."""
    return f"""
    *.self_attn.q_proj   q d   {qkv}
    *.self_attn.k_proj   kv d  {qkv}
    *.self_attn.v_proj   kv d  {qkv}
    *.self_attn.o_proj   d q   {out}
    """


def _gated_mlp(bias: str = "") -> str:
    return f"""
    *.mlp.gate_proj   ff d  {bias}
    *.mlp.up_proj     ff d  {bias}
    *.mlp.down_proj   d ff  {bias}
    """


def _decoder(*blocks: str, norm: str = "model.norm  d") -> str:
    """Token embeddings, blocks, last norm, and a head that may be tied to the embeddings."""
    return f"""
    model.embed_tokens   vocab d
    blocks model.layers
    {"".join(blocks)}
    {norm}
    lm_head.weight       vocab d  if=!tie_word_embeddings
    """


_GATED = _attention("bias=attention_bias", "bias=attention_bias")
_PRE_NORMS = """
    *.input_layernorm            d
    *.post_attention_layernorm   d
"""
_FEED_FORWARD_NORMS = """
    *.pre_feedforward_layernorm    d
    *.post_feedforward_layernorm   d
"""
_POST_NORMS = """
    *.post_attention_layernorm     d
    *.post_feedforward_layernorm   d
"""
_HEAD_NORMS = """
    *.self_attn.q_norm   head_dim
    *.self_attn.k_norm   head_dim
"""
_WHOLE_NORMS = """
    *.self_attn.q_norm   q
    *.self_attn.k_norm   kv
"""
_FUSED_ATTENTION = """
    *.self_attn.o_proj     d q
    *.self_attn.qkv_proj   q+2kv d
"""
_FUSED_GATED_MLP = """
    *.mlp.gate_up_proj  2ff d
    *.mlp.down_proj     d ff
"""

_EXPERTS = """
    *.mlp.experts.gate_up_proj   experts 2ff d  itself
    *.mlp.experts.down_proj      experts d ff   itself
"""
_ROUTER = "*.mlp.gate   experts d\n"
_LLAMA = _decoder(_GATED, _gated_mlp("bias=mlp_bias"), _PRE_NORMS)
_QWEN3 = _decoder(_GATED, _HEAD_NORMS, _gated_mlp(), _PRE_NORMS)
_GEMMA2 = _decoder(_GATED, _gated_mlp(), _PRE_NORMS, _FEED_FORWARD_NORMS)
_GEMMA3 = _decoder(_GATED, _HEAD_NORMS, _gated_mlp(), _PRE_NORMS, _FEED_FORWARD_NORMS)
_OLMO2 = _decoder(_GATED, _WHOLE_NORMS, _gated_mlp(), _POST_NORMS)
_GLM = _decoder(_attention("bias=attention_bias"), _FUSED_GATED_MLP, _PRE_NORMS)
_GLM4 = _decoder(
    _attention("bias=attention_bias"),
    _FUSED_GATED_MLP,
    _PRE_NORMS,
    """
    *.post_self_attn_layernorm   d
    *.post_mlp_layernorm         d
    """,
)
_COHERE = _decoder(
    _GATED,
    """
    *.self_attn.q_norm   heads head_dim     if=use_qk_norm
    *.self_attn.k_norm   kv_heads head_dim  if=use_qk_norm
    """,
    _gated_mlp(),
    "*.input_layernorm   d",
)
_STARCODER2 = _decoder(
    _attention("bias=use_bias", "bias=use_bias"),
    """
    *.mlp.c_fc                   ff d  bias=use_bias
    *.mlp.c_proj                 d ff  bias=use_bias
    *.input_layernorm            d     bias
    *.post_attention_layernorm   d     bias
    """,
    norm="model.norm  d  bias",
)
_STABLELM = _decoder(
    _attention("bias=use_qkv_bias"),
    """
    *.self_attn.q_layernorm.norms.[heads]      head_dim  if=qk_layernorm
    *.self_attn.k_layernorm.norms.[kv_heads]   head_dim  if=qk_layernorm
    """,
    _gated_mlp(),
    """
    *.input_layernorm            d  bias
    *.post_attention_layernorm   d  bias  if=!use_parallel_residual
    """,
    norm="model.norm  d  bias",
)
_PHI = """
    model.embed_tokens   vocab d
    blocks model.layers
    *.self_attn.q_proj        q d       bias
    *.self_attn.k_proj        kv d      bias
    *.self_attn.v_proj        kv d      bias
    *.self_attn.dense         d q       bias
    *.self_attn.q_layernorm   head_dim  bias  if=qk_layernorm
    *.self_attn.k_layernorm   head_dim  bias  if=qk_layernorm
    *.mlp.fc1                 ff d      bias
    *.mlp.fc2                 d ff      bias
    *.input_layernorm         d         bias
    model.final_layernorm     d         bias
    lm_head.weight            vocab d   if=!tie_word_embeddings
    lm_head.bias              vocab
"""
_GPT_NEOX = """
    gpt_neox.embed_in   vocab d
    blocks gpt_neox.layers
    *.input_layernorm             d     bias
    *.post_attention_layernorm    d     bias
    *.attention.query_key_value   3d d  bias=attention_bias
    *.attention.dense             d d   bias=attention_bias
    *.mlp.dense_h_to_4h           ff d  bias
    *.mlp.dense_4h_to_h           d ff  bias
    gpt_neox.final_layer_norm     d     bias
    lm_head.weight                vocab d  if=!tie_word_embeddings
"""
_OPT = """
    model.decoder.embed_tokens       vocab embed
    model.decoder.embed_positions    positions+2 d
    model.decoder.project_out        embed d  if=embed!=d
    model.decoder.project_in         d embed  if=embed!=d
    model.decoder.final_layer_norm   d  bias \
        if=do_layer_norm_before,!_remove_final_layer_norm,layer_norm_elementwise_affine
    blocks model.decoder.layers
    *.self_attn.k_proj       d d   bias=enable_bias
    *.self_attn.v_proj       d d   bias=enable_bias
    *.self_attn.q_proj       d d   bias=enable_bias
    *.self_attn.out_proj     d d   bias=enable_bias
    *.self_attn_layer_norm   d     bias  if=layer_norm_elementwise_affine
    *.fc1                    ff d  bias=enable_bias
    *.fc2                    d ff  bias=enable_bias
    *.final_layer_norm       d     bias  if=layer_norm_elementwise_affine
    lm_head.weight           vocab embed  if=!tie_word_embeddings
"""
_GPT2 = """
    transformer.wte   vocab d
    transformer.wpe   positions d
    blocks transformer.h
    *.ln_1          d      bias
    *.attn.c_attn   d->3d  bias
    *.attn.c_proj   d->d   bias
    *.ln_2          d      bias
    *.mlp.c_fc      d->ff  bias
    *.mlp.c_proj    ff->d  bias
    transformer.ln_f   d   bias
    lm_head.weight     vocab d  if=!tie_word_embeddings
"""


_COLUMNS: Final = ("vocab", "d", "layers", "heads", "kv_heads", "head_dim", "ff", "positions")


def _family(
    template: str,
    sizes: str,
    *,
    tied: bool = False,
    keys: Mapping[str, tuple[str, ...]] = COMMON_KEYS,
    head_dim_is_free: bool = True,
    experts: int | None = None,
    **flags: bool,
) -> Family:
    """`sizes` are the defaults of `_COLUMNS`, "-" for what follows from the others."""
    values = zip(_COLUMNS, sizes.split(), strict=True)
    defaults = {name: int(value) for name, value in values if value != "-"}
    if experts is not None:
        defaults["experts"] = experts
    return Family(
        template=template,
        sizes=MappingProxyType(defaults),
        flags=MappingProxyType({"tie_word_embeddings": tied, **flags}),
        keys=MappingProxyType(keys),
        head_dim_is_free=head_dim_is_free,
    )


_EXPERT_KEYS = {**COMMON_KEYS, "experts": ("num_local_experts", "num_experts")}
_GPT2_KEYS = {
    "vocab": ("vocab_size",),
    "d": ("n_embd", "hidden_size"),
    "layers": ("n_layer", "num_hidden_layers"),
    "heads": ("n_head", "num_attention_heads"),
    "ff": ("n_inner",),
    "positions": ("n_positions", "max_position_embeddings"),
}
_NEOX_KEYS = {name: key for name, key in COMMON_KEYS.items() if name != "kv_heads"}
_OPT_KEYS = {**_NEOX_KEYS, "ff": ("ffn_dim",), "embed": ("word_embed_proj_dim",)}

# Columns:          vocab    d   layers heads kv_heads head_dim ff positions
_LLAMA_SIZES = "     32000  4096  32    32     -      -    11008   2048"
_QWEN2_SIZES = "    151936  4096  32    32    32      -    22016  32768"
_QWEN3_SIZES = "    151936  4096  32    32    32    128    22016  32768"
_OLMO_SIZES = "      50304  4096  32    32     -      -    11008   2048"
_GLM_SIZES = "      151552  4096  40    32     2    128    13696 131072"
_COHERE_SIZES = "   256000  8192  40    64     -      -    22528   8192"

_FAMILIES = {
    "llama": _family(_LLAMA, _LLAMA_SIZES, attention_bias=False, mlp_bias=False),
    "granite": _family(_LLAMA, _LLAMA_SIZES, attention_bias=False, mlp_bias=False),
    "smollm3": _family(
        _LLAMA,
        "           128256  2048  36    16     4      -    11008  32768",
        tied=True,
        attention_bias=False,
        mlp_bias=False,
    ),
    "mistral": _family(
        _decoder(_attention(), _gated_mlp(), _PRE_NORMS),
        "            32000  4096  32    32     8      -    14336 131072",
    ),
    "qwen2": _family(_decoder(_attention("bias"), _gated_mlp(), _PRE_NORMS), _QWEN2_SIZES),
    "qwen3": _family(_QWEN3, _QWEN3_SIZES, attention_bias=False),
    "qwen3_moe": _family(
        _decoder(_GATED, _HEAD_NORMS, _EXPERTS, _ROUTER, _PRE_NORMS),
        "           151936  2048  24    32     4      -      768  32768",
        keys={
            **COMMON_KEYS,
            "ff": ("moe_intermediate_size",),
            "experts": ("num_experts", "num_local_experts"),
        },
        experts=128,
        attention_bias=False,
    ),
    "mixtral": _family(
        _decoder(_attention(), _ROUTER, _EXPERTS, _PRE_NORMS),
        "            32000  4096  32    32     8      -    14336 131072",
        keys=_EXPERT_KEYS,
        experts=8,
    ),
    "gemma": _family(
        _decoder(_GATED, _gated_mlp(), _PRE_NORMS),
        "           256000  3072  28    16    16    256    24576   8192",
        tied=True,
        attention_bias=False,
    ),
    "gemma2": _family(
        _GEMMA2,
        "           256000  2304  26     8     4    256     9216   8192",
        tied=True,
        attention_bias=False,
    ),
    "gemma3_text": _family(
        _GEMMA3,
        "           262208  2304  26     8     4    256     9216 131072",
        tied=True,
        attention_bias=False,
    ),
    "phi3": _family(
        _decoder(_FUSED_ATTENTION, _FUSED_GATED_MLP, _PRE_NORMS),
        "            32064  3072  32    32     -      -     8192   4096",
    ),
    "phi": _family(
        _PHI,
        "            51200  2048  24    32     -      -     8192   2048",
        qk_layernorm=False,
    ),
    # OLMo 1's layer norms have no parameters.
    "olmo": _family(_decoder(_GATED, _gated_mlp(), norm=""), _OLMO_SIZES, attention_bias=False),
    "olmo2": _family(_OLMO2, _OLMO_SIZES, attention_bias=False),
    "olmo3": _family(_OLMO2, _OLMO_SIZES, attention_bias=False),
    "glm": _family(_GLM, _GLM_SIZES, attention_bias=True),
    "glm4": _family(_GLM4, _GLM_SIZES, attention_bias=True),
    "cohere": _family(_COHERE, _COHERE_SIZES, tied=True, attention_bias=False, use_qk_norm=False),
    "cohere2": _family(
        _decoder(_GATED, _gated_mlp(), "*.input_layernorm   d"),
        _COHERE_SIZES,
        tied=True,
        head_dim_is_free=False,
        attention_bias=False,
    ),
    "starcoder2": _family(
        _STARCODER2,
        "            49152  3072  30    24     2      -    12288   4096",
        tied=True,
        use_bias=True,
    ),
    "stablelm": _family(
        _STABLELM,
        "            50304  2560  32    32    32      -     6912   4096",
        head_dim_is_free=False,
        use_qkv_bias=False,
        qk_layernorm=False,
        use_parallel_residual=False,
    ),
    "gpt_neox": _family(
        _GPT_NEOX,
        "            50432  6144  44    64     -      -    24576   2048",
        keys=_NEOX_KEYS,
        head_dim_is_free=False,
        attention_bias=True,
    ),
    "opt": _family(
        _OPT,
        "            50272   768  12    12     -      -     3072   2048",
        tied=True,
        keys=_OPT_KEYS,
        head_dim_is_free=False,
        do_layer_norm_before=True,
        _remove_final_layer_norm=False,
        enable_bias=True,
        layer_norm_elementwise_affine=True,
    ),
    "gpt2": _family(
        _GPT2,
        "            50257   768  12    12     -      -        -   1024",
        tied=True,
        keys=_GPT2_KEYS,
        head_dim_is_free=False,
    ),
}
FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(_FAMILIES)
