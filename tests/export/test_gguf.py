"""GGUF files that we write: transformers reads them back, and adapters add up to merged models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize
from transformers import AutoModelForCausalLM

from peftlab.cli.app import run
from peftlab.conversion import Part, combine
from peftlab.errors import InputError
from peftlab.export import export, gguf, gguf_lora, noted_base
from peftlab.export.gguf import ADAPTER, MODEL, MODELFILE
from peftlab.frozen import named
from peftlab.frozen.model import FrozenLM
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.parse import parse_one
from peftlab.tasks import Example, Template
from tests import gguf_files
from tests.export.made import equal, gap, made, ours, random_state, theirs
from tests.laws.world import model as frozen
from tests.models import tiny

FAMILIES = ("llama", "qwen2", "qwen3")
MERGED = ("lora:rank=2", "lora:rank=2,targets=q+k,dora=true", "ia3", "last_k", "full", "intrinsic")


def read_back(folder: Path, family: str = "llama") -> Any:
    """transformers' model of the file; of qwen3 it takes every head to have 128 dimensions."""
    how: dict[str, Any] = {"gguf_file": MODEL, "dtype": torch.float32}
    if family == "qwen3":
        how["config"] = tiny(family).config
    return AutoModelForCausalLM.from_pretrained(folder, **how).eval()


def tensors(file: Path) -> dict[str, np.ndarray]:
    return {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(file).tensors}


def field(file: Path, name: str) -> Any:
    return GGUFReader(file).fields[name].contents()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", MERGED)
def test_transformers_reads_a_merged_model_back(spec: str, family: str, tmp_path: Path) -> None:
    adaptation = made(spec, family)
    gguf(adaptation, frozen(family), tmp_path, "f32")
    assert gap(theirs(read_back(tmp_path, family)), ours(adaptation, frozen(family))) < equal(
        family
    )


@pytest.mark.parametrize(("numbers", "most"), [("f16", 1e-3), ("bf16", 1e-2)])
def test_matrices_may_be_rounded(numbers: Any, most: float, tmp_path: Path) -> None:
    adaptation = made("lora:rank=2", "llama")
    gguf(adaptation, frozen("llama"), tmp_path, numbers)
    found = gap(theirs(read_back(tmp_path)), ours(adaptation, frozen("llama")))
    assert equal("llama") < found < 10 * most
    assert field(tmp_path / MODEL, "general.file_type") == {"f16": 1, "bf16": 32}[numbers]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_on_its_base_is_the_merged_model(family: str, tmp_path: Path) -> None:
    """In llama.cpp's own order of rows: W + alpha / rank · B A, tensor by tensor."""
    lm = frozen(family)
    parts = [Part("a", made("lora:rank=2,alpha=3", family), 0.7),
             Part("b", made("lora:rank=3,targets=q+o", family, 1), 1.0)]  # fmt: skip
    for number, adaptation in enumerate((parts[0].adaptation, combine(lm, parts))):
        folder = tmp_path / str(number)
        gguf(unchanged(family), lm, folder / "base", "f32")
        gguf(adaptation, lm, folder / "merged", "f32")
        gguf_lora(adaptation, lm, folder / "lora")
        base, merged = (tensors(folder / n / MODEL) for n in ("base", "merged"))
        factors = tensors(folder / "lora" / ADAPTER)
        alpha = field(folder / "lora" / ADAPTER, "adapter.lora.alpha")
        changed = {name.rpartition(".")[0] for name in factors}
        assert changed <= merged.keys() and len(factors) == 2 * len(changed)
        for name, weight in merged.items():
            if name in changed:
                down, up = factors[f"{name}.lora_a"], factors[f"{name}.lora_b"]
                base[name] = base[name] + alpha / len(down) * up @ down
            np.testing.assert_allclose(base[name], weight, atol=1e-5)
        assert field(folder / "lora" / ADAPTER, "general.type") == "adapter"
        assert field(folder / "lora" / ADAPTER, "adapter.type") == "lora"


def unchanged(family: str) -> Adaptation:
    """What makes of a base its own GGUF file."""
    lm, method = frozen(family), parse_one("last_k")
    state = method.init(lm, None, torch.Generator())  # type: ignore[arg-type]
    return Adaptation(method, state, Template("{source} {target}"), base_of(lm))


def test_one_that_begins_at_the_cue_keeps_its_tokens(tmp_path: Path) -> None:
    lm, own = frozen("llama"), made("lora:rank=2,begin=cue", "llama")
    adaptation = replace(own, template=Template("{source}\nsay it: {target}"))
    gguf_lora(adaptation, lm, tmp_path)
    ids = field(tmp_path / ADAPTER, "adapter.alora.invocation_tokens")
    # Without the first: llama.cpp's server begins a token before what it looks for (tests/wide).
    whole = lm.tokenizer("\nsay it:", add_special_tokens=False)["input_ids"]
    assert ids == whole[1:] and not (tmp_path / MODELFILE).exists()
    with pytest.raises(InputError, match="begins at the cue"):
        gguf(adaptation, lm, tmp_path / "merged")


def test_of_a_gguf_base_all_metadata_comes_along(tmp_path: Path) -> None:
    plain = gguf_files.model()
    file = gguf_files.write(tmp_path / "base.gguf", plain, pre="smollm")
    lm = named.load(str(file))
    assert isinstance(lm, FrozenLM)
    method = parse_one("lora:rank=2")
    text = Template("{source} {target}")
    adaptation = Adaptation(method, random_state("lora:rank=2", lm), text, base_of(lm))
    gguf(adaptation, lm, tmp_path / "out", "f32")
    written = tmp_path / "out" / MODEL
    old, new = GGUFReader(file), GGUFReader(written)
    for name, value in old.fields.items():
        if not name.startswith("GGUF.") and name != "general.file_type":
            assert new.fields[name].contents() == value.contents(), name
    assert tensors(written).keys() == tensors(file).keys()
    assert gap(theirs(read_back(tmp_path / "out")), ours(adaptation, lm)) < equal("llama")


def test_the_tokenizer_is_the_bases_own(tmp_path: Path) -> None:
    gguf(made("lora:rank=2", "llama"), frozen("llama"), tmp_path, "f32")
    again, own = named.load(str(tmp_path / MODEL)).tokenizer, frozen("llama").tokenizer
    for text in ("the cat sings under the hill", "rain, and 12 birds!"):
        assert again(text)["input_ids"] == own(text)["input_ids"]
    assert (again.bos_token_id, again.eos_token_id) == (own.bos_token_id, own.eos_token_id)


@pytest.mark.parametrize("words", ["read this", "read {{{{this}}}}", '{{"text": {{'])
def test_ollama_makes_the_prompt_of_training(words: str, tmp_path: Path) -> None:
    lm, text = frozen("llama"), Template(words + ": {source}\nsay it: {target}")
    gguf_lora(replace(made("lora:rank=2", "llama"), template=text), lm, tmp_path)
    said = (tmp_path / MODELFILE).read_text()
    assert said.startswith("FROM ./BASE.gguf\nADAPTER ./adapter.gguf\nTEMPLATE")
    template = said.partition('TEMPLATE """')[2].partition('"""')[0]
    braces = {f'{{{{ "{one}" }}}}': one for one in "{}"}
    for go, literal in ({"{{ .Prompt }}": "a cat"} | braces).items():
        template = template.replace(go, literal)
    assert template == f"{words.format()}: a cat\nsay it:"
    ids = text.encode(lm.tokenizer, Example("a cat", ()), None, 90).ids
    assert tuple(lm.tokenizer(template)["input_ids"]) == ids  # its BOS included, where it has one
    assert f'PARAMETER stop "{lm.tokenizer.eos_token}"' in said


@pytest.mark.parametrize(
    ("kind", "spec", "family", "said"),
    [
        ("gguf", "bottleneck", "llama", "cannot be merged"),
        ("gguf", "bitfit", "llama", "adds biases"),
        ("gguf", "lora:rank=2", "gpt2", "GGUF is written for llama"),
        ("gguf-lora", "lora:rank=2", "gpt2", "GGUF is written for llama"),
        ("gguf-lora", "lora:rank=2,dora=true", "llama", "no plain lora"),
        ("gguf-lora", "full", "llama", "no plain lora"),
        ("gguf-lora", "bitfit", "llama", "trains biases"),
        ("gguf-lora", "prompt_tuning:length=3,initialisation=random", "llama", "no plain lora"),
    ],
)
def test_what_it_does_not_hold_is_one_line(
    kind: str, spec: str, family: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as error:
        export(kind, {"a": made(spec, family)}, frozen(family), tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["vllm", "peft"])
def test_what_is_no_lora_becomes_one_where_a_task_is_given(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--limit", "24", "--batch-size", "4", "-o", "max_new_tokens=4"]
    trained = ["--method", "bottleneck:bottleneck=4", "--steps", "2", "--out", str(tmp_path / "a")]
    assert run(["train", *trained, *small]) == 0
    ask = ["export", str(tmp_path / "a"), "--to", to, "--out", str(tmp_path / "out")]
    assert run(ask) == 2
    assert "bottleneck" in capsys.readouterr().err
    more = ["--task", "demo", "--steps", "2", "--test-limit", "2", "--as", "lora:rank=4", *small]
    assert run([*ask, *more]) == 0
    said = capsys.readouterr().out
    assert "It becomes lora:rank=4:" in said and "nats a token" in said
    folder = tmp_path / "out" / ("a" if to == "vllm" else "")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["r"] == 4
    assert noted_base(folder)["name"] == "demo"
