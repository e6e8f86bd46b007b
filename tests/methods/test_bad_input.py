"""What cannot be used is one clear error: what was got, what there is, how to mend it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from peftlab.errors import InputError, PeftlabError
from peftlab.frozen.conformance import UnsupportedModel
from peftlab.frozen.model import FrozenLM
from peftlab.methods import parse, parse_one
from peftlab.methods.adaptation import Adaptation
from peftlab.training import TrainConfig, train
from tests.laws.cases import CASES, made
from tests.laws.world import model, task, tokenizer
from tests.models import tiny

QUICK = TrainConfig(steps=1, batch_size=2, validation_limit=1)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("prompt_tuning:length=96", r"length=96 leaves no room .* context of 96"),
        ("prefix_tuning:length=200", r"length=200 leaves no room .* context of 96"),
        ("p_tuning:length=96", r"length=96 leaves no room .* context of 96"),
        ("prompt_tuning:length=90", r"does not fit"),
        ("prefix_tuning:length=90", r"does not fit"),
        ("prompt_tuning:length=0", r"length is 0; at least 1"),
        ("prefix_tuning:reparametrisation=mlp,hidden=0", r"hidden is 0; at least 1"),
        ("bottleneck:bottleneck=0", r"bottleneck is 0; at least 1"),
        ("lora:rank=0", r"rank is 0; at least 1"),
        ("lora:rank=17,targets=q+v", r"rank=17 is above the 16 of .*v_proj.*\(16 × 32\)"),
        ("lora:dropout=1.0", r"dropout is 1.0; less than 1"),
        ("lora:dropout=-0.1", r"dropout is -0.1; at least 0"),
        ("lora:plus=0", r"plus is 0.*; more than 0"),
        ("lora:layers=1+7", r"\[7\]: this model has 3 blocks, 0 to 2"),
        ("lora:targets=", r"targets.*q, .*all-linear"),
        ("lora:targets=q_prj", r"'q_prj' matches no linear .*down_proj.*Did you mean \"q_proj\""),
        ("lora:targets=c_attn", r"'c_attn' matches no linear of this llama .*q_proj"),
        ("ia3:targets=keys", r"'keys' matches no linear"),
        ("ia3:targets=,feedforward=", r"ia3: .*nothing"),
        ("intrinsic:dimension=0", r"dimension is 0; at least 1"),
        ("intrinsic:dimension=9000000", r"9,000,000 is above the [\d,]+ parameters"),
        ("intrinsic:dimension=4,structure=true", r"no direction beside the 4 scales"),
        ("last_k:k=4", r"k=4, but this model has 3 blocks"),
        ("last_k:k=0", r"k is 0; at least 1"),
        ("layers:blocks=3", r"blocks=\[3\]: this model has 3 blocks, 0 to 2"),
        ("layers:blocks=1-9", r"this model has 3 blocks"),
        ("layers:blocks=2-1", r"2-1"),
        ("layers:blocks=top", r"'top'; a number or a range"),
        ("layers:pattern=*.c_attn.*", r"matches no parameter; there are model.embed_tokens"),
        ("llama_adapter:layers=4", r"layers=4, but this model has 3 blocks"),
        ("hard_prompt:shots=-1", r"shots is -1; at least 0"),
        ("hard_prompt:shots=5,pool=2", r"shots=5 of a pool=2"),
        ("hard_prompt:shots=30", r"30"),
        ("p_tuning:length=5,pattern={p:2}{source}{p:1}{target}", r"3 pseudo tokens, but length=5"),
        ("lora+lora:rank=2", r"both change the linear site"),
        ("prompt_tuning+p_tuning", r"both"),
    ],
)
def test_settings_that_do_not_fit(case: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(model("llama"), parse_one(case), task(), QUICK)


def test_labels_of_a_task_without_any() -> None:
    plain = replace(task(), labels=None)
    with pytest.raises(InputError, match=r"needs class labels, and the task tiny has none"):
        train(model("llama"), parse_one("prompt_tuning:initialisation=labels"), plain, QUICK)


def test_the_tasks_instruction_where_it_has_none() -> None:
    silent = replace(task(), instruction="")
    with pytest.raises(InputError, match=r"the task tiny brings no instruction; give one"):
        train(model("llama"), parse_one("hard_prompt:instruction=task"), silent, QUICK)


def test_an_odd_width_has_no_lstm() -> None:
    odd = replace(model("llama").shape, hidden=33)
    with pytest.raises(InputError, match=r"even width; this model's is 33"):
        parse_one("p_tuning:encoder=lstm").check(odd)


def test_a_model_that_lacks_a_site_is_refused_before_training() -> None:
    opt = FrozenLM(tiny("opt"), tokenizer(), "opt")
    with pytest.raises(UnsupportedModel, match=r"bottleneck needs the parallel site.*one module"):
        train(opt, parse_one("bottleneck:kind=parallel"), task(), QUICK)
    train(opt, parse_one("bottleneck:kind=houlsby"), task(), QUICK)


def test_a_model_without_tokenizer_cannot_be_trained() -> None:
    with pytest.raises(InputError, match=r"tokenizer.json"):
        train(FrozenLM(tiny("gpt2"), None, "bare"), parse_one("lora"), task(), QUICK)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("lra", r"unknown method 'lra'; there are .*Did you mean \"lora\""),
        ("lora:rnk=4", r"lora has no setting 'rnk'; it has .*Did you mean \"rank\""),
        ("lora:rank=four", r"lora: rank is 'four'; a whole number was expected"),
        ("lora:targets=qv:rank=8", r"separated by commas: lora:targets=qv,rank=8"),
        ("lora:rank", r"'rank' is no setting; key=value was expected"),
        ("prefix_tuning:reparametrisation=lstm", "reparametrisation is 'lstm'; 'none', 'mlp' or"),
        ("", r"no methods in ''; there are bitfit, "),
        ("lora+nothing", r"nothing"),
    ],
)
def test_words_that_name_no_method(words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(words)


@pytest.mark.parametrize("case", CASES)
def test_an_adaptation_of_another_base_lists_every_mismatch(case: str) -> None:
    it = made(case, "gpt2")
    with pytest.raises(PeftlabError) as caught:
        it.adaptation(it.first).edits(model("llama"))
    message = str(caught.value)
    assert "gpt2" in message and "llama" in message
    assert it.model.fingerprint[9:21] in message and model("llama").fingerprint[9:21] in message


def test_all_mismatches_of_shape_come_in_one_error() -> None:
    it = made("lora:rank=4,layers=2,targets=q_proj", "llama")
    other = FrozenLM(tiny("gpt2", hidden_size=16, num_hidden_layers=2), tokenizer())
    with pytest.raises(InputError) as caught:
        it.adaptation(it.first).edits(other)
    message = str(caught.value)
    for mismatch in (
        it.model.fingerprint[9:21],
        "family is gpt2, not llama",
        "layers is 2, not 3",
        "hidden is 16, not 32",
        "kv_heads is 4, not 2",
        "layers=[2]: this model has 2 blocks",
    ):
        assert mismatch in message


def test_numbers_that_do_not_fit_are_told_apart_from_another_base() -> None:
    it = made("lora:rank=4,targets=q+v", "llama")
    other = made("lora:rank=2,dropout=0.1+prompt_tuning:length=4", "llama")
    mixed = replace(it.adaptation(it.first), state=other.first)
    with pytest.raises(
        InputError, match=r"no lora for llama, or it is damaged: missing: .*12 in all"
    ):
        mixed.edits(it.model)


def test_a_part_of_a_target_that_is_there_as_a_whole_counts_once() -> None:
    shape = model("gpt2").shape
    assert shape.targets(["q", "c_attn", "v"]) == shape.targets(["c_attn"])
    assert shape.targets(["all-linear", "k"]) == shape.targets(["all-linear"])


class TestFiles:
    """A stored adaptation that is damaged, pickled, or not one."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        it = made("lora", "gpt2")
        it.adaptation(it.moved).save(tmp_path)
        return tmp_path

    @pytest.mark.parametrize("file", ["adaptation.json", "adaptation.safetensors"])
    def test_half_a_file(self, folder: Path, file: str) -> None:
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"is damaged"):
            Adaptation.load(folder)

    @pytest.mark.parametrize("file", ["adaptation.json", "adaptation.safetensors"])
    def test_a_missing_file(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        with pytest.raises(InputError, match=rf"holds no adaptation: .*{file} is missing"):
            Adaptation.load(folder)

    def test_a_pickled_file_is_never_loaded(self, folder: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return Path.touch, (folder / "exploded",)  # type: ignore[return-value]

        pickled = pickle.dumps(Bomb())
        (folder / "adaptation.safetensors").write_bytes(pickled)
        with pytest.raises(InputError, match=r"pickled files are never loaded"):
            Adaptation.load(folder)
        torch.save(made("lora", "gpt2").first.tensors, folder / "adaptation.safetensors")
        with pytest.raises(InputError, match=r"pickled files are never loaded"):
            Adaptation.load(folder)
        assert not (folder / "exploded").exists()

    @pytest.mark.parametrize("text", ["[]", "{}", '{"format": 1}', '{"format": 99}', "null"])
    def test_json_that_is_no_adaptation(self, folder: Path, text: str) -> None:
        (folder / "adaptation.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"format|lacks|damaged"):
            Adaptation.load(folder)

    def test_settings_of_another_version(self, folder: Path) -> None:
        stored = json.loads((folder / "adaptation.json").read_text(encoding="utf-8"))
        stored["settings"]["colour"] = "red"
        (folder / "adaptation.json").write_text(json.dumps(stored), encoding="utf-8")
        with pytest.raises(InputError, match=r"lora has no setting 'colour'"):
            Adaptation.load(folder)
