"""A merged checkpoint, loaded by plain transformers, gives the unmerged logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from peftlab import export
from peftlab.errors import InputError
from tests.export.made import equal, gap, made, ours, theirs
from tests.laws import world
from tests.laws.world import model as frozen
from tests.models import tiny

SPECS = (
    "lora:rank=2,targets=q+v+down",
    "lora:rank=2,targets=all-linear,rslora=true",
    "lora:rank=2,targets=k+up,dora=true",
    "ia3",
    "ia3:targets=q+o,feedforward=up",
    "last_k",
    "layers:head=true,final_norm=true",
    "full",
    "lora:targets=q+ia3:targets=o,feedforward=",
)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gpt_neox", "gemma3_text"])
@pytest.mark.parametrize("spec", SPECS)
def test_merged_is_unmerged(spec: str, family: str, tmp_path: Path) -> None:
    lm, adaptation = frozen(family), made(spec, family)
    expected, before = ours(adaptation, lm), lm.fingerprint
    numbers = export.merged(adaptation, lm, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert gap(expected, theirs(tiny(family))) > 1e-3
    assert gap(theirs(plain), expected) < equal(family)
    assert numbers.fp32 < equal(family) < numbers.bf16
    from peftlab.bases.fingerprint import fingerprint

    assert fingerprint(lm.model.named_parameters()) == before


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi3"])
def test_bitfit_where_the_family_has_a_place_for_biases(family: str, tmp_path: Path) -> None:
    lm, adaptation = frozen(family), made("bitfit", family)
    if family == "phi3":
        with pytest.raises(InputError, match=r"phi3 has no place for.*train lora"):
            export.merged(adaptation, lm, tmp_path)
        assert not list(tmp_path.iterdir())
        return
    export.merged(adaptation, lm, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert gap(theirs(plain), ours(adaptation, lm)) < 1e-5


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("prompt_tuning:initialisation=random", "embedding-rows or vllm"),
        ("prefix_tuning:initialisation=random", "keys and values are no weights"),
        ("llama_adapter", "keys and values are no weights"),
        ("bottleneck", "non-linearity"),
    ],
)
def test_what_is_no_weight_is_refused(spec: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        export.merged(made(spec, "gpt2"), frozen("gpt2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_reported_differences(tmp_path: Path) -> None:
    """Rounding the base to bf16 is what bf16_apart is; merging rounds the sum."""
    lm, adaptation = frozen("gpt2"), made("lora:rank=2,targets=c_attn", "gpt2")
    numbers = export.merged(adaptation, lm, tmp_path)
    stored = json.loads((tmp_path / "peftlab.json").read_text())["differences"]
    assert stored == {
        "fp32": numbers.fp32, "bf16": numbers.bf16,
        "bf16_apart": numbers.bf16_apart, "choices": numbers.choices,
    }  # fmt: skip
    assert 1e-4 < numbers.bf16 < 0.5
    assert 1e-4 < numbers.bf16_apart < 0.5
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    from peftlab.export.merging import probes

    with torch.no_grad():
        rows = torch.tensor(probes(lm))
        exact = plain(rows).logits
        for name, parameter in plain.named_parameters():
            if "c_attn.weight" in name:
                parameter.copy_(parameter.bfloat16().float())
        rounded = plain(rows).logits
    by_hand = float((rounded - exact).abs().max() / exact.abs().max())
    assert by_hand == pytest.approx(numbers.bf16, rel=1e-2)


def test_tokenizer_and_template_come_along(tmp_path: Path) -> None:
    lm = world.model("llama")
    adaptation = made("lora:rank=2", "llama")
    export.merged(adaptation, lm, tmp_path)
    text = "red cat"
    assert AutoTokenizer.from_pretrained(tmp_path)(text) == lm.tokenizer(text)
    assert json.loads((tmp_path / "peftlab.json").read_text())["template"]["text"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_defaults_of_the_base_that_change_replies_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lm, adaptation = world.model("llama"), made("lora:rank=2", "llama")
    end = lm.tokenizer.eos_token_id
    plain = {"eos_token_id": end, "max_length": 4096, "temperature": 0.6, "top_p": 0.9, "top_k": 50}
    monkeypatch.setattr(lm.model, "generation_config", GenerationConfig(**plain))
    assert export.merged(adaptation, lm, tmp_path / "quiet").defaults == {}
    for values in (
        {"repetition_penalty": 1.05, "suppress_tokens": [5]},
        {"do_sample": True, "temperature": 0.6},
        {"no_repeat_ngram_size": 3, "forced_eos_token_id": end},
        {"num_beams": 4, "length_penalty": 0.5},
        {"eos_token_id": [end, 7]},
        {"an_engine_of_the_future": 1},
    ):
        changed = GenerationConfig(**{"eos_token_id": end, **values})
        monkeypatch.setattr(lm.model, "generation_config", changed)
        assert export.merged(adaptation, lm, tmp_path).defaults == values
        told = json.loads((tmp_path / "peftlab.json").read_text())
        assert told["generation_defaults"] == values
        assert set(told["differences"]) == {"fp32", "bf16", "bf16_apart", "choices"}
