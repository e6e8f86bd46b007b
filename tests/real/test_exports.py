"""What is written of the real model for others: PEFT's folders, both ways, and merged ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export import test_gguf, test_merging, test_peft_loading, test_peft_saving
from tests.real_model import REAL

_SAVED = (
    "prompt_tuning:length=3,initialisation=random",
    "p_tuning:length=3,placement=first,initialisation=random",
    "prefix_tuning:length=3,initialisation=random",
    "lora:rank=2,alpha=3,targets=q+v",
    "lora:rank=2,targets=all-linear",
    "lora:rank=2,targets=q+v+up,dora=true",
    "ia3",
)
_LOADED = ("prompt", "p_mlp", "prefix", "lora", "all-linear", "dora", "ia3")
_MERGED = ("lora:rank=2,targets=all-linear", "lora:rank=2,targets=k+up,dora=true", "ia3", "full")


def _cases(names: tuple[str, ...], sample: str) -> list[object]:
    return [
        pytest.param(name, marks=pytest.mark.sample if name == sample else ()) for name in names
    ]


@pytest.mark.parametrize("spec", _cases(_SAVED, _SAVED[3]))
def test_peft_gives_the_logits_of_what_we_saved(spec: str, tmp_path: Path) -> None:
    test_peft_saving.test_peft_gives_the_same_logits(spec, REAL, tmp_path)


@pytest.mark.parametrize("kind", _cases(_LOADED, "lora"))
def test_we_give_the_logits_of_what_peft_saved(kind: str, tmp_path: Path) -> None:
    test_peft_loading.test_same_logits(kind, REAL, tmp_path)


@pytest.mark.parametrize("spec", _cases(_MERGED, _MERGED[0]))
def test_transformers_reads_a_gguf_file_back(spec: str, tmp_path: Path) -> None:
    test_gguf.test_transformers_reads_a_merged_model_back(spec, REAL, tmp_path)


def test_a_gguf_adapter_on_its_base_is_the_merged_model(tmp_path: Path) -> None:
    test_gguf.test_an_adapter_on_its_base_is_the_merged_model(REAL, tmp_path)


@pytest.mark.parametrize("spec", _cases(_MERGED, _MERGED[0]))
def test_merged_is_unmerged(spec: str, tmp_path: Path) -> None:
    test_merging.test_merged_is_unmerged(spec, REAL, tmp_path)
