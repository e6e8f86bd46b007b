"""The bundled model: loads offline, is small, answers requests, and its maker is deterministic."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from peftlab.demo.documents import HELD_OUT_BUCKETS, DocumentSource
from peftlab.demo.pretrain import fields_right, pretrain, train_tokenizer
from peftlab.demo.recipe import END, Recipe
from peftlab.demo.world import MODEL_FOLDER, demo_tasks


def test_size_and_dtype() -> None:
    files = [path for path in MODEL_FOLDER.iterdir() if path.is_file()]
    assert {path.name for path in files} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in files) < 10_000_000
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    assert model.dtype == torch.float32
    assert 1e6 < model.num_parameters() < 4e6
    config = model.config
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0, 0, 0)


def test_tokenizer_ends_rows_and_adds_nothing() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    assert tokenizer.eos_token == END
    assert tokenizer.bos_token is None
    for text in ("Sat / Thornwick [games] – naïve ☃\n\n x", " leading", "12 345"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.eos_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_rows_of_the_demo_tasks_fit() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    for task in demo_tasks().values():
        for source, targets in task.splits("train")[:100]:
            assert len(tokenizer(" " + targets[0])["input_ids"]) < task.max_new_tokens
            assert len(tokenizer(source)["input_ids"]) < 120


def test_answers_requests_of_the_pretraining_kind() -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    requests = islice(DocumentSource(HELD_OUT_BUCKETS).requests(7), 32)
    right, lines = fields_right(model, tokenizer, requests)
    assert right > 0.9
    assert lines > 0.8


def test_answers_one_request_word_for_word() -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    prompt = (
        "Write [TOWN/DAY] EVENT by HOST\n"
        "Thornwick holds its lantern parade on Saturday. Mara Fenson is the host.\nLine:"
    )
    encoded = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**encoded, max_new_tokens=32, do_sample=False, pad_token_id=0)
    answer = tokenizer.decode(out[0, encoded["input_ids"].shape[1] :])
    assert answer == " [Thornwick/Saturday] lantern parade by Mara Fenson" + END


def test_bundled_tokenizer_is_the_one_that_the_script_makes() -> None:
    made = train_tokenizer(Recipe())
    assert made.get_vocab() == AutoTokenizer.from_pretrained(MODEL_FOLDER).get_vocab()


def test_pretraining_is_deterministic(tmp_path: Path) -> None:
    weights = []
    for name in ("a", "b"):
        recipe = Recipe(3, vocabulary_documents=200, layers=1, width=32, heads=2)
        pretrain(recipe, tmp_path / name, report_every=3)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
