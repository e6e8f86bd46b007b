"""The offline configurations, against the parameter counts that the models' authors publish."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from peftlab.bases import known_models, layouts
from peftlab.errors import InputError

# Totals of the published checkpoints (hub metadata and papers), not computed by us.
PUBLISHED = {
    "distilbert/distilgpt2": 81_912_576,
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-medium": 354_823_168,
    "openai-community/gpt2-large": 774_030_080,
    "openai-community/gpt2-xl": 1_557_611_200,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "TinyLlama/TinyLlama_v1.1": 1_100_048_384,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "google/gemma-2b": 2_506_172_416,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-3-270m": 268_098_176,
    "google/gemma-3-1b-pt": 999_885_952,
    "facebook/opt-125m": 125_239_296,
    "facebook/opt-350m": 331_196_416,
    "facebook/opt-1.3b": 1_315_758_080,
    "facebook/opt-2.7b": 2_651_596_800,
    "facebook/opt-6.7b": 6_658_473_984,
    "EleutherAI/pythia-70m": 70_426_624,
    "EleutherAI/pythia-160m": 162_322_944,
    "EleutherAI/pythia-410m": 405_334_016,
    "EleutherAI/pythia-1b": 1_011_781_632,
    "EleutherAI/pythia-1.4b": 1_414_647_808,
    "EleutherAI/pythia-2.8b": 2_775_208_960,
    "microsoft/phi-1_5": 1_418_270_720,
    "microsoft/phi-2": 2_779_683_840,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "allenai/OLMo-2-0425-1B": 1_484_916_736,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
    "bigcode/starcoder2-3b": 3_030_371_328,
    "stabilityai/stablelm-2-1_6b": 1_644_515_328,
}


def test_every_known_model_has_its_published_count() -> None:
    counts = {n: layouts.parameter_count(known_models.config(n)) for n in known_models.names()}
    assert counts == PUBLISHED


@pytest.mark.parametrize("name", known_models.names())
def test_configurations_load_in_transformers_with_the_same_shapes(name: str) -> None:
    """Two blocks are enough: blocks are alike, and their number is in the published count."""
    config = known_models.config(name)
    config["n_layer" if config["model_type"] == "gpt2" else "num_hidden_layers"] = 2
    made: Any = AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert layouts.parameter_shapes(config) == shapes


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2", "GPT2"])
def test_short_names(name: str) -> None:
    assert known_models.config(name)["n_embd"] == 768


def test_short_names_are_not_ambiguous() -> None:
    short = [name.lower().rsplit("/", 1)[-1] for name in known_models.names()]
    assert len(set(short)) == len(short)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r'Did you mean "llama-3\.2-1b"'):
        known_models.config("llama3.2-1b")


def test_a_change_of_the_answer_changes_nobody_elses() -> None:
    known_models.config("llama-3.2-1b")["rope_scaling"]["factor"] = 0
    assert known_models.config("llama-3.2-1b")["rope_scaling"]["factor"] == 32.0


def test_neither_table_imports_torch() -> None:
    """`peftlab methods --model NAME` starts in well under a second because of it."""
    program = (
        "import sys; from peftlab.bases import known_models as k, layouts as l;"
        "l.parameter_count(k.config('gpt2')); assert 'transformers' not in sys.modules;"
        "assert 'torch._C' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
