"""Parameter layouts from a configuration, against the models that transformers makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from peftlab.bases import layouts
from peftlab.bases.layouts.families import FAMILIES
from peftlab.errors import InputError

LLAMA_LIKE = sorted(
    name for name, family in FAMILIES.items() if family.keys.get("kv_heads") is not None
)
FIXED_HEAD_DIM = {name for name, family in FAMILIES.items() if not family.head_dim_is_free}


def transformers_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The oracle: transformers' own model of this configuration, without its weights' memory."""
    made: PreTrainedConfig = AutoConfig.for_model(**config)
    # Special tokens of the real vocabularies lie outside tiny ones, and none is a parameter.
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(made, token, None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def tiny(family: str, **changes: Any) -> dict[str, Any]:
    """Two small blocks in the family's own words, every extent different from the others."""
    sizes = {"vocab": 97, "d": 24, "layers": 2, "heads": 6, "kv_heads": 3, "ff": 40}
    sizes |= {"positions": 19, "head_dim": 8}
    keys = FAMILIES[family].keys
    config = {keys[name][0]: size for name, size in sizes.items() if name in keys}
    if family in FIXED_HEAD_DIM:
        config.pop("head_dim", None)
    return {"model_type": family, **config, **changes}


def assert_same_as_transformers(config: dict[str, Any]) -> None:
    ours = layouts.parameter_shapes(config)
    assert list(ours.items()) == list(transformers_shapes(config).items())


@pytest.mark.parametrize("family", layouts.families())
@pytest.mark.parametrize("tied", [False, True])
def test_names_shapes_and_order_are_those_of_transformers(family: str, tied: bool) -> None:
    assert_same_as_transformers(tiny(family, tie_word_embeddings=tied))


@pytest.mark.parametrize("family", layouts.families())
def test_everything_but_the_family_may_be_left_out(family: str) -> None:
    """One block of the default size: what config.json omits is transformers' default."""
    layers = FAMILIES[family].keys["layers"][0]
    assert_same_as_transformers({"model_type": family, layers: 1})


@pytest.mark.parametrize("family", layouts.families())
def test_default_depth_is_that_of_transformers(family: str) -> None:
    made = AutoConfig.for_model(family)
    assert layouts.dimensions({"model_type": family}).layers == made.num_hidden_layers


@pytest.mark.parametrize(
    ("family", "flag"),
    [
        (name, flag)
        for name, family in sorted(FAMILIES.items())
        for flag in family.flags
        if flag != "tie_word_embeddings"
    ],
)
def test_each_flag_does_what_it_does_in_transformers(family: str, flag: str) -> None:
    plain = tiny(family, head_dim=4)  # Phi's head norms only fit heads of hidden size / heads
    flipped = plain | {flag: not FAMILIES[family].flags[flag]}
    assert_same_as_transformers(flipped)
    assert layouts.parameter_shapes(flipped) != layouts.parameter_shapes(plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "opt", "word_embed_proj_dim": 10},
        {"model_type": "opt", "word_embed_proj_dim": 10, "tie_word_embeddings": False},
        {"model_type": "gpt2", "n_inner": 50},
        {"model_type": "llama", "head_dim": None},
        {"model_type": "llama", "num_key_value_heads": None},
        {"model_type": "qwen2", "num_key_value_heads": None},
        {"model_type": "phi3", "num_key_value_heads": 1},
        {"model_type": "cohere", "use_qk_norm": True, "attention_bias": True},
        {"model_type": "stablelm", "qk_layernorm": True, "use_parallel_residual": True},
    ],
    ids=str,
)
def test_family_specialities(changes: dict[str, Any]) -> None:
    assert_same_as_transformers(tiny(changes["model_type"]) | changes)


def test_gpt2_takes_the_common_names_too() -> None:
    common = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "vocab_size": 9}
    assert_same_as_transformers({"model_type": "gpt2", "max_position_embeddings": 7, **common})


@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(LLAMA_LIKE),
    layers=st.integers(1, 3),
    kv_heads=st.integers(1, 4),
    group=st.integers(1, 4),
    half_head=st.integers(1, 6),
    ff=st.integers(1, 50),
    vocab=st.integers(1, 120),
    flags=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_random_sizes_and_flags(
    family: str,
    layers: int,
    kv_heads: int,
    group: int,
    half_head: int,
    ff: int,
    vocab: int,
    flags: list[bool],
) -> None:
    heads, head_dim = kv_heads * group, 4 * half_head  # rotary needs an even part of each head
    sizes = {"vocab_size": vocab, "hidden_size": heads * head_dim, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    chosen = dict(zip(FAMILIES[family].flags, flags, strict=False))
    config = tiny(family, **sizes, head_dim=head_dim, intermediate_size=ff, **chosen)
    assert_same_as_transformers(config)


def test_the_configuration_transformers_saves_is_understood(tmp_path: Any) -> None:
    """The file, with everything transformers writes into it, and a null where it means derived."""
    made = AutoConfig.for_model(**tiny("gpt2"))
    made.save_pretrained(tmp_path)
    saved = made.get_config_dict(tmp_path)[0]
    assert saved["n_inner"] == 40
    assert layouts.parameter_shapes(saved) == transformers_shapes(tiny("gpt2"))


def test_parameter_count_counts_tied_parameters_once() -> None:
    config = tiny("gpt2")
    per_block = 4 * 24 + (24 + 1) * 72 + (24 + 1) * 24 + (24 + 1) * 40 + (40 + 1) * 24
    assert layouts.parameter_count(config) == 97 * 24 + 19 * 24 + 2 * per_block + 2 * 24


def test_dimensions_under_one_name_each() -> None:
    sizes = layouts.dimensions(
        {"model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16}
    )
    assert (sizes.d, sizes.head_dim, sizes.q, sizes.kv) == (1024, 128, 2048, 32 * 128)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "lama"}, 'Did you mean "llama"'),
        ({"model_type": "mamba"}, "on the meta device"),
        ({}, "names no model family"),
        ({"model_type": "gpt2", "n_embd": 10, "n_head": 3}, "n_embd a multiple of n_head"),
        ({"model_type": "llama", "num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"model_type": "llama", "vocab_size": 0}, "vocab_size is 0"),
    ],
    ids=str,
)
def test_bad_configurations_are_refused_clearly(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        layouts.parameter_shapes(config)
