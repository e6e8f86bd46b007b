"""A prompt learnt on one task as the start for another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from peftlab.comparison.plan import Base, Run
from peftlab.comparison.settings import EvaluationConfig
from peftlab.errors import InputError
from peftlab.methods import Method, parse_one
from peftlab.training import TrainConfig
from tests.laws.cases import made
from tests.laws.world import model, task


def _saved(case: str, folder: Path) -> torch.Tensor:
    it = made(case, "gpt2")
    adaptation = it.adaptation(it.moved)
    adaptation.save(folder)
    return next(iter(adaptation.state.tensors.values()))


def _start(method: Method, family: str = "gpt2") -> torch.Tensor:
    state = method.init(model(family), task(), torch.Generator().manual_seed(0))
    return state.tensors["prompt"]


@pytest.mark.parametrize("case", ["prompt_tuning:length=5", "p_tuning:length=5,encoder=mlp"])
def test_it_starts_where_the_other_ended(case: str, tmp_path: Path) -> None:
    saved = _saved(case, tmp_path)
    assert torch.equal(_start(parse_one(f"prompt_tuning:length=5,prompt={tmp_path}")), saved)


def test_what_does_not_fit_is_one_clear_error(tmp_path: Path) -> None:
    method = parse_one(f"prompt_tuning:length=5,prompt={tmp_path}")
    with pytest.raises(InputError, match=r"holds no adaptation"):
        _start(method)
    _saved("lora:rank=2", tmp_path)
    with pytest.raises(InputError, match=r"holds lora, which is no soft prompt"):
        _start(method)
    _saved("prompt_tuning:length=4", tmp_path)
    with pytest.raises(InputError, match=r"length=5, but .* has 4 vectors: give length=4"):
        _start(method)
    with pytest.raises(InputError, match=r"is for another base: .*gpt2.*llama"):
        _start(method, "llama")


def _run(method: Method) -> Run:
    base = Base(name="gpt2", fingerprint="f", parameters=1, device="cpu")
    evaluation = EvaluationConfig()
    return Run(
        method=method, seed=0, task=task(), config=TrainConfig(), evaluation=evaluation, base=base
    )


@pytest.mark.parametrize("words", ["{}", "{}+lora:rank=2"])
def test_another_prompt_in_the_folder_makes_another_run(words: str, tmp_path: Path) -> None:
    method = parse_one(words.format(f"prompt_tuning:length=5,prompt={tmp_path}"))
    with pytest.raises(InputError, match=r"adaptation.safetensors is missing"):
        _ = _run(method).config_hash
    it = made("prompt_tuning:length=5", "gpt2")
    hashes = []
    for state in (it.first, it.moved, it.first):
        replace(it.adaptation(it.first), state=state).save(tmp_path)
        hashes.append(_run(method).config_hash)
    assert hashes[0] == hashes[2] != hashes[1]
