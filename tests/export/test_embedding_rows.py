"""Prompts as embedding rows: plain transformers gives our logits over the old vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from peftlab import export
from peftlab.cli.app import run
from peftlab.errors import InputError
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import State
from peftlab.tasks import Example, Template
from tests.laws import world
from tests.models import tiny
from tests.tasks.tokenizers_for_tests import byte_level, sentencepiece

SPECS = {
    "first": "prompt_tuning:length=3,initialisation=random",
    "around": "p_tuning:length=4,initialisation=random",
}
TEMPLATE = Template("{instruction}{source}\nsay it: {target}", instruction="sing")
SOURCES = ("red cat runs", "old moon")


def _made(lm: FrozenLM, template: Template = TEMPLATE) -> dict[str, Adaptation]:
    base = base_of(lm)
    rng = torch.Generator().manual_seed(4)
    adaptations = {}
    for name, spec in SPECS.items():
        method = parse_one(spec)
        length = method.settings()["length"]
        state = State({"prompt": torch.randn(length, lm.shape.hidden, generator=rng)})
        adaptations[name] = Adaptation(method, state, template, base)
    return adaptations


def _ours(lm: FrozenLM, adaptation: Adaptation, source: str) -> torch.Tensor:
    edits = adaptation.edits(lm)
    assert edits.template is not None
    ids = edits.template.encode(lm.tokenizer, Example(source, ("",)), None, 90).ids
    with torch.no_grad():
        return lm(pack([Row(ids)], [edits]))[0]


def _check(lm: FrozenLM, folder: Path, template: Template = TEMPLATE) -> dict[str, Any]:
    adaptations = _made(lm, template)
    result = export.embedding_rows(adaptations, lm, folder)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    described = json.loads((folder / "prompts.json").read_text())["tasks"]
    new = [i for own in result.ids.values() for i in own]
    for name, adaptation in adaptations.items():
        assert described[name]["text_is_exact"]
        for source in SOURCES:
            text = described[name]["text"].replace("{source}", source)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert [i for i in ids if i in result.ids[name]] == list(result.ids[name])
            with torch.no_grad():
                logits = plain(torch.tensor([ids])).logits[0, -1]
            expected = _ours(lm, adaptation, source)
            old = [i for i in range(len(expected)) if i not in new]
            assert torch.allclose(
                logits[old], expected[old], atol=1e-5 * float(expected.abs().max())
            )
            assert logits[new].max() <= logits[result.stand_in]
            assert logits[new].max() < logits.max()
    return described


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma3_text", "phi"])
def test_plain_logits_over_the_old_vocabulary(family: str, tmp_path: Path) -> None:
    _check(FrozenLM(tiny(family), world.tokenizer(), family), tmp_path)


def test_a_tokenizer_with_its_own_bos_has_it_after_the_prompt(tmp_path: Path) -> None:
    tokenizer = byte_level(bos=True)
    lm = FrozenLM(tiny("llama", vocab_size=len(tokenizer)), tokenizer, "llama")
    described = _check(lm, tmp_path)
    assert described["first"]["text"].startswith("<first-0><first-1><first-2><|begin|>sing")


def test_rows_that_the_tokenizer_never_used_are_taken_first(tmp_path: Path) -> None:
    lm = FrozenLM(tiny("gpt2", vocab_size=128), world.tokenizer(), "gpt2")
    _check(lm, tmp_path)
    result = export.embedding_rows(_made(lm), lm, tmp_path)
    assert result.ids["first"] == (120, 121, 122)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size == 128


def test_where_the_text_would_be_cut_otherwise_it_says_so(tmp_path: Path) -> None:
    tokenizer = sentencepiece("always")
    lm = FrozenLM(tiny("llama", vocab_size=len(tokenizer)), tokenizer, "llama")
    export.embedding_rows(_made(lm), lm, tmp_path)
    described = json.loads((tmp_path / "prompts.json").read_text())["tasks"]
    template = _made(lm)["around"].edits(lm).template
    assert template is not None
    ids = template.encode(tokenizer, Example("a b", ("",)), None, 90).ids
    text = described["around"]["text"].replace("{source}", "a b")
    again = AutoTokenizer.from_pretrained(tmp_path)(text, add_special_tokens=False)["input_ids"]
    same = [i for i in ids if i >= 0] == [i for i in again if i < len(tokenizer)]
    assert described["around"]["text_is_exact"] == same


def test_generation_suppresses_the_pseudo_tokens(tmp_path: Path) -> None:
    lm = world.model("gpt2")
    result = export.embedding_rows(_made(lm), lm, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    new = [i for own in result.ids.values() for i in own]
    assert plain.generation_config.suppress_tokens == new
    with torch.no_grad():  # without suppression these would be the likeliest by far
        plain.get_output_embeddings().weight[new] = 100 * plain.get_output_embeddings().weight[5]
    ids = torch.tensor([[*result.ids["first"], 5, 6, 7]])
    out = plain.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert not set(out.tolist()) & set(new)


def test_defaults_of_the_base_that_change_replies_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lm = world.model("gpt2")
    end = lm.tokenizer.eos_token_id
    for own, values in (
        ({"temperature": 0.6, "suppress_tokens": [5]}, {}),
        ({"repetition_penalty": 1.05}, {"repetition_penalty": 1.05}),
        ({"eos_token_id": [end, 7]}, {"eos_token_id": [end, 7]}),
    ):
        config = GenerationConfig(**{"eos_token_id": end, **own})
        monkeypatch.setattr(lm.model, "generation_config", config)
        assert export.embedding_rows(_made(lm), lm, tmp_path).defaults == values
        assert json.loads((tmp_path / "prompts.json").read_text())["generation_defaults"] == values
        written = json.loads((tmp_path / "generation_config.json").read_text())
        assert {name: written[name] for name in values} == values and written["suppress_tokens"]


@pytest.mark.parametrize(
    ("to", "method"), [("embedding-rows", "prompt_tuning:length=2"), ("merged", "bitfit")]
)
def test_the_command_names_them(
    to: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tokenizer = tmp_path / "base", world.tokenizer()
    made = tiny("gpt2", eos_token_id=tokenizer.eos_token_id)
    made.generation_config.repetition_penalty = 1.2
    made.save_pretrained(base)
    tokenizer.save_pretrained(base)
    lm, chosen = FrozenLM.load(base), parse_one(method)
    state = chosen.materialise(chosen.init(lm, world.task(), torch.Generator()), lm)
    Adaptation(chosen, state, world.task().template, base_of(lm)).save(tmp_path / "adapter")
    line = f"export {tmp_path / 'adapter'} --to {to} --out {tmp_path / 'out'} --device cpu"
    assert run(line.split()) == 0
    said = capsys.readouterr().err
    assert said.count("changes replies (repetition_penalty 1.2)") == 1


def test_refusals(tmp_path: Path) -> None:
    lm = world.model("gpt2")
    base = base_of(lm)
    lora = parse_one("lora:rank=2")
    adapted = Adaptation(lora, lora.init(lm, world.task(), torch.Generator()), TEMPLATE, base)
    with pytest.raises(InputError, match=r"task: lora is no soft prompt.*merged export"):
        export.embedding_rows({"task": adapted}, lm, tmp_path)
    first = export.embedding_rows(_made(lm), lm, tmp_path)
    assert first.tokens["around"][0] == "<around-0>"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    again = FrozenLM(tiny("gpt2"), tokenizer, "gpt2")
    with pytest.raises(InputError, match="already has <first-0>: give the task another name"):
        export.embedding_rows(_made(again), again, tmp_path)
