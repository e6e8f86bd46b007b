"""A plain transformers checkpoint of the base with other weights, free of peftlab's attention."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import (
        GenerationConfig,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from peftlab.frozen.model import FrozenLM

# What a family calls the switch that gives its projections a bias.
_BIAS_SWITCHES = ("attention_bias", "mlp_bias")


def plain_model(
    model: FrozenLM, weights: Mapping[str, torch.Tensor], config: PretrainedConfig
) -> PreTrainedModel:
    """The base under a configuration of its family, some weights replaced or added.

    Biases that the configuration adds and `weights` does not name are zero. Of a quantised base the
    weights are dequantised: the adaptation was trained on those.
    """
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        made = AutoModelForCausalLM.from_config(config, dtype=model.model.dtype)
        made.tie_weights()
    given = {**dict(model.model.named_buffers()), **weights}
    with torch.no_grad():
        for name, own in [*made.named_parameters(), *made.named_buffers()]:
            if name in given:
                own.copy_(given[name])
            elif name in model.shape.parameters:
                own.copy_(model.gather(name))
            elif name.endswith(".bias"):
                own.zero_()
            else:
                raise AssertionError(f"{name} has no value")
    made.generation_config = copy.deepcopy(model.model.generation_config)
    return made.eval()


def plain_config(model: FrozenLM) -> PretrainedConfig:
    """The base's configuration, to be changed at will."""
    config = copy.deepcopy(model.model.config)
    config._attn_implementation = None
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def with_biases(config: PretrainedConfig, wanted: set[str]) -> set[str]:
    """Switch on what gives the model these biases; returns those that no switch gives."""
    switches = [s for s in _BIAS_SWITCHES if getattr(config, s, None) is False]
    missing = wanted - _parameters(config)
    for switch in switches:
        if missing:
            setattr(config, switch, True)
            left = wanted - _parameters(config)
            if left == missing:  # this one gave none of them
                setattr(config, switch, False)
            missing = left
    return missing


def _parameters(config: PretrainedConfig) -> set[str]:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config)
    return {name for name, _ in made.named_parameters()}


def save_plain(made: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer, as transformers' `from_pretrained` reads them.

    The base's generation defaults come along as they are: transformers reads checkpoints with a
    temperature and no sampling, and refuses to write them.
    """
    from transformers import GenerationConfig

    defaults, made.generation_config = made.generation_config, GenerationConfig()
    made.save_pretrained(folder)
    made.generation_config = defaults
    (folder / "generation_config.json").write_text(defaults.to_json_string(), encoding="utf-8")
    tokenizer.save_pretrained(folder)


# Settings of a generation configuration that leave greedy replies, and how long they are, alone.
_HARMLESS = {
    *("transformers_version", "_from_model_config", "bos_token_id", "pad_token_id"),
    *("decoder_start_token_id", "use_cache", "cache_implementation", "cache_config"),
    *("max_cache_len", "prefill_chunk_size", "compile_config", "disable_compile", "low_memory"),
    *("continuous_batching_config", "output_attentions", "output_hidden_states", "output_scores"),
    *("output_logits", "return_dict_in_generate", "num_return_sequences", "renormalize_logits"),
    *("remove_invalid_values", "use_mtp", "is_assistant", "num_assistant_tokens"),
    *("num_assistant_tokens_schedule", "assistant_confidence_threshold", "max_matching_ngram_size"),
    *("prompt_lookup_num_tokens", "assistant_early_exit", "assistant_lookbehind"),
    *("target_lookbehind", "assistant_ensemble_weight", "speculation_type"),
    "max_length",  # which a call's own max_new_tokens replaces, and other engines do not read
}
_NEUTRAL = {
    **{"repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "length_penalty": 1.0},
    **{"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0, "guidance_scale": 1.0, "num_beams": 1},
    **{"num_beam_groups": 1, "min_length": 0, "min_new_tokens": 0, "no_repeat_ngram_size": 0},
    **{"encoder_no_repeat_ngram_size": 0, "top_k": 0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0},
    "diversity_penalty": 0.0,
}
_OF_SAMPLING = {
    *("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff"),
    "eta_cutoff",
}
_OF_BEAMS = {"length_penalty", "early_stopping", "num_beam_groups", "diversity_penalty"}


def changed_replies(config: GenerationConfig, own: Sequence[int]) -> dict[str, Any]:
    """What of a base's generation defaults makes replies other than a task's own greedy ones.

    Args:
        own: the tokens that end a reply here.
    """
    settings = {k: v for k, v in config.to_dict().items() if v not in (None, False, [], {})}
    idle = _HARMLESS | (set() if config.do_sample else _OF_SAMPLING)
    idle |= set() if (config.num_beams or 1) > 1 else _OF_BEAMS
    ends = settings.pop("eos_token_id", None)
    changing = {k: v for k, v in settings.items() if k not in idle and _NEUTRAL.get(k) != v}
    named = {*ends} if isinstance(ends, list | tuple) else {ends}
    if ends is not None and named != {*own}:
        changing["eos_token_id"] = ends
    return changing


def about(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What `peftlab.json` says of an export."""
    from peftlab.version import __version__

    return {"export": kind, "peftlab": __version__, **values}
