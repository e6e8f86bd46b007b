"""Adapters that PEFT has made load here with the same logits, or are refused with all reasons."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from peftlab import export
from peftlab.errors import InputError
from peftlab.methods import parse_one
from peftlab.tasks import Template
from tests.export.made import deprecations_of_peft, equal, gap, made, ours, theirs
from tests.laws.world import model as frozen
from tests.models import tiny

_ENDS = {"gpt2": ("c_attn", "mlp.c_proj"), "llama": ("q_proj", "down_proj")}
_ENDS["qwen3"] = _ENDS["mistral"] = _ENDS["real"] = _ENDS["llama"]
_PROMPT = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}


def _configs(family: str) -> dict[str, Any]:
    attention, down = _ENDS[family]
    lora = {"task_type": "CAUSAL_LM", "r": 2, "fan_in_fan_out": family == "gpt2"}
    return {
        "prompt": peft.PromptTuningConfig(**_PROMPT),
        "p_mlp": peft.PromptEncoderConfig(**_PROMPT, encoder_hidden_size=8),
        "p_lstm": peft.PromptEncoderConfig(
            **_PROMPT, encoder_hidden_size=8, encoder_reparameterization_type="LSTM"
        ),
        "prefix": peft.PrefixTuningConfig(**_PROMPT),
        "prefix_mlp": peft.PrefixTuningConfig(
            **_PROMPT, prefix_projection=True, encoder_hidden_size=8
        ),
        "lora": peft.LoraConfig(**lora, target_modules=[attention, down], lora_alpha=5),
        "all-linear": peft.LoraConfig(**lora, target_modules="all-linear"),
        "expression": peft.LoraConfig(**lora, target_modules=rf".*\.[02]\..*{attention}"),
        "layers": peft.LoraConfig(**lora, target_modules=[attention], layers_to_transform=[0, 2]),
        "dora": peft.LoraConfig(**lora, target_modules=[attention, down], use_dora=True),
        "ranks": peft.LoraConfig(
            **lora,
            target_modules=[attention, down],
            use_rslora=True,
            rank_pattern={attention: 5},
            alpha_pattern={down: 3},
        ),
        "ia3": peft.IA3Config(
            task_type="CAUSAL_LM",
            target_modules=[attention, down],
            feedforward_modules=[down],
            fan_in_fan_out=family == "gpt2",
        ),
    }


def _trained(config: Any, family: str, folder: Path) -> Any:
    """A PEFT model with random weights everywhere, saved."""
    torch.manual_seed(3)
    with deprecations_of_peft():
        model = peft.get_peft_model(tiny(family), config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("kind", list(_configs("gpt2")))
def test_same_logits(kind: str, family: str, tmp_path: Path) -> None:
    model = _trained(_configs(family)[kind], family, tmp_path)
    adaptation = export.peft.load(tmp_path, frozen(family))
    assert gap(theirs(tiny(family)), theirs(model)) > 1e-3
    assert gap(ours(adaptation, frozen(family)), theirs(model)) < equal(family)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_adaption_prompt(family: str, tmp_path: Path) -> None:
    config = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=3, adapter_layers=2)
    model = _trained(config, family, tmp_path)
    adaptation = export.peft.load(tmp_path, frozen(family))
    assert gap(ours(adaptation, frozen(family)), theirs(model)) < 1e-5


def test_adaption_prompt_of_gpt2_is_refused(tmp_path: Path) -> None:
    config = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=3, adapter_layers=2)
    _trained(config, "gpt2", tmp_path)
    with pytest.raises(InputError, match="after the output projection, unprojected"):
        export.peft.load(tmp_path, frozen("gpt2"))


def test_settings_are_named_as_ours(tmp_path: Path) -> None:
    for family, targets in (("gpt2", ("c_attn", "down")), ("llama", ("down", "q"))):
        _trained(_configs(family)["lora"], family, tmp_path / family)
        loaded = export.peft.load(tmp_path / family, frozen(family))
        assert loaded.method.settings()["targets"] == targets
        assert (loaded.method.settings()["rank"], loaded.method.settings()["alpha"]) == (2, 5)


def test_either_format_opens(tmp_path: Path) -> None:
    lm, adaptation = frozen("gpt2"), made("lora:rank=2", "gpt2")
    adaptation.save(tmp_path / "own")
    export.peft.save(adaptation, lm, tmp_path / "peft")
    for name in ("own", "peft"):
        opened = export.open_adaptation(tmp_path / name, lm)
        assert gap(ours(opened, lm), ours(adaptation, lm)) < 1e-6
    template = Template("{source}!{target}")
    assert export.open_adaptation(tmp_path / "peft", lm, template).template == template
    with pytest.raises(InputError, match=r"adaptation\.json.*adapter_config\.json"):
        export.open_adaptation(tmp_path, lm)


def _changed(folder: Path, **changes: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A LoRA of gpt2 that PEFT has saved."""
    _trained(_configs("gpt2")["lora"], "gpt2", tmp_path)
    return tmp_path


def test_everything_that_does_not_fit_is_listed(lora: Path) -> None:
    tensors = load_file(lora / "adapter_model.safetensors")
    names = sorted(tensors)
    del tensors[names[0]]
    tensors[names[1]] = tensors[names[1]][:, :1].contiguous()
    tensors[names[2]] = tensors[names[2]].to(torch.int32)
    tensors[names[3]] = torch.full_like(tensors[names[3]], float("nan"))
    tensors["base_model.model.transformer.wte.lora_embedding_A"] = torch.zeros(2, 2)
    save_file(tensors, lora / "adapter_model.safetensors")
    _changed(lora, modules_to_save=["lm_head"], bias="all", init_lora_weights="pissa")
    with pytest.raises(InputError) as caught:
        export.peft.load(lora, frozen("gpt2"))
    message = str(caught.value)
    for part in (
        f"missing: {names[0]} [2, 32]",
        f"wrong shape: {names[1]}",
        f"wrong type: {names[2]} torch.int32",
        "surplus: base_model.model.transformer.wte.lora_embedding_A [2, 2]",
        "modules_to_save=['lm_head']",
        "bias='all'",
        "'pissa' changes the base's weights",
    ):
        assert part in message
    assert "\n" not in message


def test_numbers_that_are_none(lora: Path) -> None:
    tensors = load_file(lora / "adapter_model.safetensors")
    name = max(tensors)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, lora / "adapter_model.safetensors")
    with pytest.raises(InputError, match=f"not a number: {name}"):
        export.peft.load(lora, frozen("gpt2"))


def test_an_adapter_of_another_base(lora: Path) -> None:
    with pytest.raises(InputError, match="match no module of this base") as caught:
        export.peft.load(lora, frozen("llama"))
    assert "12 in all" in str(caught.value)


def test_an_adapter_for_other_weights_of_the_same_shape(tmp_path: Path) -> None:
    from peftlab.frozen.model import FrozenLM

    export.peft.save(made("lora:rank=2", "gpt2"), frozen("gpt2"), tmp_path)
    with pytest.raises(InputError, match=r"made for gpt2 .*loaded on other"):
        export.peft.load(tmp_path, FrozenLM(tiny("gpt2", seed=1), name="other"))


def test_unknown_types(lora: Path) -> None:
    with pytest.raises(InputError, match=r"'VERA'; peftlab reads ADAPTION_PROMPT, IA3.*guest"):
        export.peft.load(_changed(lora, peft_type="VERA"), frozen("gpt2"))
    with pytest.raises(InputError, match='Did you mean "LORA"'):
        export.peft.load(_changed(lora, peft_type="LORAX"), frozen("gpt2"))
    with pytest.raises(InputError, match="'SEQ_2_SEQ_LM', expected CAUSAL_LM"):
        _changed(lora, peft_type="LORA", task_type="SEQ_2_SEQ_LM")
        export.peft.load(lora, frozen("gpt2"))


@pytest.mark.parametrize("name", ["r", "lora_alpha", "target_modules"])
def test_nonsense_settings(lora: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is -3"):
        export.peft.load(_changed(lora, **{name: -3}), frozen("gpt2"))


def test_damaged_and_pickled_files(lora: Path) -> None:
    path = lora / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        export.peft.load(lora, frozen("gpt2"))
    path.unlink()
    torch.save({"x": torch.zeros(1)}, lora / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model\.bin is pickled.*never loaded"):
        export.peft.load(lora, frozen("gpt2"))
    (lora / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"adapter_config\.json is damaged"):
        export.peft.load(lora, frozen("gpt2"))
    shutil.rmtree(lora)
    with pytest.raises(InputError, match=r"has no adapter_config\.json"):
        export.peft.load(lora, frozen("gpt2"))


def test_half_precision_is_read(lora: Path) -> None:
    path = lora / "adapter_model.safetensors"
    save_file({n: t.bfloat16() for n, t in load_file(path).items()}, path)
    loaded = export.peft.load(lora, frozen("gpt2"))
    assert all(t.dtype == torch.float32 for t in loaded.state.tensors.values())


def test_loaded_methods_can_be_written_as_words(lora: Path) -> None:
    method = export.peft.load(lora, frozen("gpt2")).method
    assert parse_one("lora:rank=2,alpha=5,targets=c_attn+down") == method
