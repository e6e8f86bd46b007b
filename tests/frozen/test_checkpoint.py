"""A base is whole, or refused by the names of what is wrong; what is left over is told once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftlab.errors import InputError
from peftlab.frozen.checkpoint import BaseNote
from peftlab.frozen.loading import load_plain
from peftlab.tasks import Example, Template
from tests.laws.world import tokenizer
from tests.models import tiny

Tensors = dict[str, torch.Tensor]
_QKV = "transformer.h.1.attn.c_attn.weight"


def _folder(path: Path, family: str = "gpt2", **config: Any) -> Path:
    tiny(family).save_pretrained(path)
    tokenizer().save_pretrained(path)
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return path


def _change(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def test_a_whole_one_says_nothing(tmp_path: Path) -> None:
    for family in ("gpt2", "llama", "qwen3"):
        load_plain(_folder(tmp_path / family, family))


def test_tied_and_recomputed_tensors_are_not_missing(tmp_path: Path) -> None:
    folder = _change(
        _folder(tmp_path), lambda t: {n: x for n, x in t.items() if "lm_head" not in n}
    )
    model, _ = load_plain(folder)
    table = model.get_input_embeddings().weight
    assert torch.equal(model.get_output_embeddings().weight, table)


def _without(t: Tensors) -> Tensors:
    return {name: x for name, x in t.items() if "ln_1" not in name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without, r"missing: transformer\.h\.\*\.ln_1\.bias \(3\), .*ln_1\.weight \(3\)"),
        (lambda t: t | {_QKV: t[_QKV][:, :5].contiguous()}, rf"wrong shape: {_QKV} \[32, 5\]"),
        (lambda t: t | {_QKV: t[_QKV].to(torch.int8)}, rf"whole numbers.*{_QKV} I8"),
        (lambda t: {f"x.{n}": x for n, x in t.items()}, r"missing: .*surplus: x\."),
    ],
)
def test_what_is_not_the_configurations_is_named(
    change: Callable[[Tensors], Tensors], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        load_plain(_change(_folder(tmp_path), change))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"n_layer": 0}, "0 blocks"),
        ({"n_layer": 5}, r"missing: .*h\.\*\.attn\.c_attn\.bias \(2\)"),
        ({"vocab_size": 500}, r"wrong shape: transformer\.wte\.weight \[120, 32\]"),
        ({"n_embd": -32}, "cannot load a model"),
        ({"n_head": 0}, "cannot load a model"),
        ({"vocab_size": "x"}, "vocab_size"),
        ({"dtype": "zz"}, "zz"),
    ],
)
def test_configurations_that_cannot_be_meant(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        load_plain(_folder(tmp_path, **config))
    assert "\n" not in str(refused.value)


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    file = _folder(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot load a model"):
        load_plain(tmp_path)


def test_surplus_tensors_are_told_once_and_known_ones_not_at_all(tmp_path: Path) -> None:
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8)}
    load_plain(_change(_folder(tmp_path / "mask"), lambda t: t | mask))
    tower = {f"tower.{i}.weight": torch.zeros(2) for i in range(9)}
    with pytest.warns(BaseNote, match=r"no place for: tower\.\*\.weight \(9\)") as told:
        load_plain(_change(_folder(tmp_path / "tower"), lambda t: t | tower))
    assert len(told) == 1


def test_ids_that_the_base_does_not_embed(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = _folder(tmp_path)
    more = AutoTokenizer.from_pretrained(folder)
    more.add_tokens(["<tag>"])
    more.save_pretrained(folder)
    with pytest.warns(BaseNote, match="ids up to 120, the base embeds 120"):
        _, own = load_plain(folder)
    template = Template("{source}{target}")
    assert template.encode(own, Example("red cat", ()), " old", 90).ids
    for source, text, target in (
        ("a <tag> cat", "{source}{target}", "old"),
        ("cat", "<tag>{source}{target}", "old"),
        ("cat", "{source}{target}", "<tag>"),
    ):
        with pytest.raises(InputError, match=r"'<tag>' with the id 120.*embeds 120 .*resize"):
            Template(text).encode(own, Example(source, ()), target, 90)
    own.eos_token = "<tag>"
    with pytest.raises(InputError, match="The end of every target holds"):
        template.end_id(own)
