"""What peftlab saves as a PEFT adapter, PEFT loads: same logits, same gradients, same layout."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file

from peftlab import export
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.export.peft import LAYOUTS
from peftlab.frozen.packing import Row, pack
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.base import State
from tests.export.made import (
    ROWS,
    TEXT,
    equal,
    gap,
    in_peft,
    made,
    ours,
    pseudo,
    random_state,
    theirs,
    training_in_peft,
)
from tests.laws.world import model as frozen
from tests.models import tiny

FAMILIES = ("gpt2", "llama", "qwen3")
SPECS = (
    "prompt_tuning:length=3,initialisation=random",
    "p_tuning:length=3,placement=first,initialisation=random",
    "p_tuning:length=3,placement=first,encoder=mlp,initialisation=random",
    "prefix_tuning:length=3,initialisation=random",
    "prefix_tuning:length=3,reparametrisation=mlp,hidden=8",
    "lora:rank=2,alpha=3,targets=q+v",
    "lora:rank=2,targets=q+k+v+o+down,rslora=true",
    "lora:rank=2,targets=q+v+up,dora=true",
    "lora:rank=2,targets=o,layers=0+2",
    "lora:rank=2,targets=all-linear",
    "ia3",
    "ia3:targets=q+o,feedforward=up",
)


def _saved(adaptation: Adaptation, family: str, folder: Path) -> Path:
    return export.peft.save(adaptation, frozen(family), folder)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", SPECS)
def test_peft_gives_the_same_logits(spec: str, family: str, tmp_path: Path) -> None:
    adaptation = made(spec, family)
    expected = ours(adaptation, frozen(family))
    assert gap(expected, theirs(tiny(family))) > 1e-3  # the adapter does something
    loaded = in_peft(_saved(adaptation, family, tmp_path), family)
    assert gap(theirs(loaded), expected) < equal(family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", SPECS)
def test_our_own_folder_comes_back(spec: str, family: str, tmp_path: Path) -> None:
    lm, adaptation = frozen(family), made(spec, family)
    back = export.peft.load(_saved(adaptation, family, tmp_path), lm)
    assert gap(ours(back, lm), ours(adaptation, lm)) < 1e-6
    assert back.template == TEXT
    assert back.method.name == adaptation.method.name


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("tanh", ["true", "false"])
def test_llama_adapter_where_the_definitions_agree(family: str, tanh: str, tmp_path: Path) -> None:
    lm = frozen(family)
    adaptation = made(f"llama_adapter:length=3,layers=2,gate=layer,tanh={tanh}", family)
    loaded = in_peft(_saved(adaptation, family, tmp_path), family)
    assert gap(theirs(loaded), ours(adaptation, lm)) < 1e-5
    assert gap(ours(export.peft.load(tmp_path, lm), lm), ours(adaptation, lm)) < 1e-6


@pytest.mark.parametrize(
    ("family", "spec", "reason"),
    [
        ("gpt2", "llama_adapter:gate=layer", "after the output projection"),
        ("qwen3", "llama_adapter:gate=layer", "llama and mistral only, not qwen3"),
        ("llama", "llama_adapter", "llama_adapter:gate=layer"),
        ("gpt2", "p_tuning:length=4,initialisation=random", "placement=first"),
        ("gpt2", "bottleneck", "peftlab's own format"),
        ("gpt2", "bitfit", "merged"),
        ("gpt2", "last_k", "full checkpoint"),
        ("gpt2", "lora:targets=q+ia3:targets=o", "one method a folder"),
    ],
)
def test_refused_with_the_reason(family: str, spec: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        _saved(made(spec, family), family, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", SPECS)
def test_layout_is_what_peft_itself_saves(spec: str, family: str, tmp_path: Path) -> None:
    """PEFT saves the loaded adapter again: same files, same tensor names, shapes and values."""
    first, second = tmp_path / "ours", tmp_path / "theirs"
    _saved(made(spec, family), family, first)
    loaded = in_peft(first, family)
    loaded.peft_config["default"].base_model_name_or_path = None  # else it is looked for on the hub
    loaded.save_pretrained(second)
    own, again = (load_file(f / "adapter_model.safetensors") for f in (first, second))
    assert own.keys() == again.keys()
    assert all(torch.equal(own[name], again[name]) for name in own)
    config = json.loads((first / "adapter_config.json").read_text())
    known = {f.name for f in fields(PEFT_TYPE_TO_CONFIG_MAPPING[config["peft_type"]])}
    assert config.keys() <= known
    if "target_modules" in config:
        assert config["target_modules"]


def _peft_gradients(model: Any) -> dict[str, torch.Tensor]:
    """By the names that PEFT's files have."""
    for ids in ROWS:
        row = torch.tensor([ids])
        logits = model(row).logits[0, -len(ids) :]
        torch.nn.functional.cross_entropy(logits[:-1], row[0, 1:], reduction="sum").backward()
    gradients = {
        n.replace(".default", ""): p.grad for n, p in model.named_parameters() if p.requires_grad
    }
    prompt = gradients.pop("prompt_encoder.embedding.weight", None)
    return gradients if prompt is None else {"prompt_embeddings": prompt}


def _our_gradients(spec: str, family: str) -> tuple[Adaptation, dict[str, torch.Tensor]]:
    lm = frozen(family)
    state = random_state(spec, lm)
    leaves = {n: t.clone().requires_grad_() for n, t in state.tensors.items()}
    adaptation = made(spec, family)
    lead = pseudo(adaptation)
    edits: Edits = adaptation.method.edits(State(leaves, state.text), lm)
    batch = pack([Row([*lead, *ids], 0, len(lead)) for ids in ROWS], [edits])
    losses = [
        torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum")
        for ids, logits in zip(ROWS, batch.split_kept(lm(batch)), strict=True)
    ]
    torch.stack(losses).sum().backward()
    return adaptation, {n: t.grad for n, t in leaves.items() if t.grad is not None}


@pytest.mark.parametrize(
    ("family", "spec"),
    [
        (family, spec)
        for family in FAMILIES
        for spec in (
            "prompt_tuning:length=3,initialisation=random",
            "prefix_tuning:length=3,initialisation=random",
            "lora:rank=2,alpha=3,targets=" + ("c_attn+o" if family == "gpt2" else "q+v+down"),
            "lora:rank=2,targets=" + ("c_attn" if family == "gpt2" else "k+up") + ",dora=true",
            "lora:rank=2,rslora=true,targets=down+o",
            "ia3" + (":targets=c_attn" if family == "gpt2" else ""),
        )
    ]
    + [("llama", "llama_adapter:length=3,layers=2,gate=layer,tanh=false")],
)
def test_gradients_are_those_of_peft(family: str, spec: str, tmp_path: Path) -> None:
    adaptation, gradients = _our_gradients(spec, family)
    _saved(adaptation, family, tmp_path)
    expected = _peft_gradients(training_in_peft(tmp_path, family))
    got = _in_their_layout(adaptation, gradients, family)
    assert got.keys() == {name.removesuffix(".weight") for name in expected}
    for name, gradient in expected.items():
        scale = gradient.abs().max()
        assert scale > 0
        own = got[name.removesuffix(".weight")].reshape(gradient.shape)
        assert (own - gradient).abs().max() < 1e-4 * scale, name


def _in_their_layout(
    adaptation: Adaptation, gradients: dict[str, torch.Tensor], family: str
) -> dict[str, torch.Tensor]:
    """Gradients under the names of PEFT's files; a prefix also in its order."""
    if "prefix" in gradients:
        as_values = Adaptation(adaptation.method, State(gradients), TEXT, adaptation.base)
        return LAYOUTS["prefix_tuning"].write(as_values, frozen(family))[1]
    ends = {"magnitude": "lora_magnitude_vector", "in": "ia3_l", "out": "ia3_l"}
    renamed = {}
    for name, gradient in gradients.items():
        head, _, end = name.rpartition(".")
        if adaptation.method.name == "llama_adapter":
            head, end = f"model.layers.{head}.self_attn", f"adaption_{end}"
        renamed[
            f"base_model.model.{head}.{ends.get(end, end)}" if head else "prompt_embeddings"
        ] = gradient
    return renamed


def test_peft_is_not_needed_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    _saved(made(SPECS[5], "gpt2"), "gpt2", tmp_path)
    assert peft is not None
