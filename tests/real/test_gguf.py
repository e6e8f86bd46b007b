"""The GGUF file that the folder was made of, beside it or named by PEFTLAB_REAL_GGUF."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import peftlab as pl
from peftlab import export
from peftlab.bases import gguf
from peftlab.bases.pretrained import read_tokenizer
from peftlab.demo.documents import DocumentSource
from peftlab.frozen.checkpoint import BaseNote
from peftlab.frozen.loading import load_plain
from tests import real_model

pytestmark = [
    pytest.mark.skipif(
        not real_model.GGUF.is_file(),
        reason="no GGUF file beside the folder: make real-model FOLDER=…",
    ),
    pytest.mark.filterwarnings(f"ignore::{BaseNote.__module__}.{BaseNote.__qualname__}"),
]


@pytest.fixture(scope="module")
def ours() -> PreTrainedModel:
    return load_plain(real_model.GGUF)[0]


@pytest.mark.sample
def test_fp32_is_transformers_own_reading(ours: PreTrainedModel) -> None:
    file = real_model.GGUF
    theirs = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    pairs = zip(ours.named_parameters(), theirs.named_parameters(), strict=True)
    for (name, mine), (same, other) in pairs:
        assert name == same and torch.equal(mine, other), name


@pytest.mark.sample
def test_the_folder_s_weights_are_these_rounded_to_bf16(ours: PreTrainedModel) -> None:
    folder = real_model.plain()
    pairs = zip(ours.named_parameters(), folder.named_parameters(), strict=True)
    apart = 0.0
    for (name, mine), (same, other) in pairs:
        assert name == same and torch.equal(mine.to(torch.bfloat16).float(), other), name
        apart = max(apart, float((mine - other).detach().abs().max()))
    assert apart > 0, "the file's numbers are finer than bf16"
    assert ours.config.to_dict().get("quantization_config") is None


def _texts() -> Iterator[str]:
    """Sentences of the demo's corpus, and what tokenizers find hard."""
    yield from (
        "",
        " ",
        "12,345.67 €",
        "naïve 你好 🙂",
        "<|im_start|>user\nhi<|im_end|>",
        "\t\n\n  x",
    )
    yield from (document.text for document in DocumentSource().documents(seed=0))


@pytest.mark.sample
def test_tokens_are_those_of_transformers_and_of_the_folder() -> None:
    file, texts = real_model.GGUF, list(islice(_texts(), 1000))
    assert len(texts) == 1000
    found = read_tokenizer(str(file))
    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for other in (theirs, real_model.tokenizer()):
        assert found(texts)["input_ids"] == other(texts)["input_ids"]
        assert found.chat_template == other.chat_template
        assert found.special_tokens_map == other.special_tokens_map


def test_it_trains_answers_and_is_written_as_a_folder(tmp_path: Path) -> None:
    """As a newcomer would: two steps of LoRA on the file, a reply, and a merged folder."""
    model = pl.load(real_model.GGUF)
    assert any("splits text" in note for note in model.notes)
    task = pl.load_task("demo", limit=8)
    adaptation = pl.train(model, "lora:rank=2", task, steps=2, batch_size=2, validation_limit=2)
    (reply,) = pl.generate(model, [(adaptation, task.test[0])], max_new_tokens=4)
    assert reply.tokens
    export.merged(adaptation, model, tmp_path / "merged")
    again = pl.load(tmp_path / "merged")
    assert again.shape == model.shape and again.tokenizer.chat_template
    assert gguf.read_header(real_model.GGUF).words.endswith("(llama, Q4_1)")
