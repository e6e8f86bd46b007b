"""Replies of the real model: transformers' own, greedy and by beams, in a chat, and served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from peftlab.generation import Request, generate
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.tasks import Decoding, Task
from peftlab.tasks.fit import look
from tests import real_model
from tests.generation import test_generate
from tests.laws import world
from tests.real_model import REAL
from tests.serve import test_engine
from tests.serve import world as serving

_WAYS: list[tuple[Decoding, dict[str, object]]] = [
    (Decoding(), {}),
    (Decoding(beams=3), {"num_beams": 3}),
    (Decoding(beams=4, length_penalty=0.6), {"num_beams": 4, "length_penalty": 0.6}),
]


@pytest.mark.parametrize(
    ("decoding", "options"),
    [pytest.param(*way, marks=pytest.mark.sample if i < 2 else ()) for i, way in enumerate(_WAYS)],
)
def test_greedy_and_beam_search_are_those_of_transformers(
    decoding: Decoding, options: dict[str, object]
) -> None:
    test_generate.test_greedy_and_beam_search_are_those_of_transformers(REAL, decoding, options)


def test_a_mixed_batch_answers_as_each_request_alone() -> None:
    test_generate.test_a_mixed_batch_answers_as_each_request_alone(REAL, 64)


_FEW = tuple(serving.NAMES[i] for i in (2, 4, 9))  # a prompt, a prefix, LoRA


@pytest.mark.parametrize(
    "names", [pytest.param(_FEW, id="few", marks=pytest.mark.sample), serving.NAMES]
)
def test_methods_served_in_one_batch_answer_as_each_alone(names: tuple[str, ...]) -> None:
    test_engine.test_all_methods_in_one_batch_answer_as_each_alone(REAL, names)


_QUESTIONS = ("What is the capital of France?", "Name three colours.", "  Say  hello\nto me ")


def _chats(folder: Path) -> Task:
    """Questions as a task in a chat."""
    rows = [json.dumps({"source": q, "target": "Paris"}) for q in _QUESTIONS]
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    task = Task.load(folder, chat=True)
    return look(task, real_model.tokenizer()).apply(task)


@pytest.mark.sample
def test_rows_stand_in_the_model_s_own_chat_template(tmp_path: Path) -> None:
    """Prompt and whole row are what `apply_chat_template` makes of the same messages."""
    task, tokenizer = _chats(tmp_path), real_model.tokenizer()
    assert tokenizer.chat_template
    for example in task.test:
        asked = {"role": "user", "content": example.source}
        prompt = tokenizer.apply_chat_template([asked], add_generation_prompt=True)["input_ids"]
        ids = list(task.template.encode(tokenizer, example, None, 500).ids)
        assert ids == prompt
        whole = [asked, {"role": "assistant", "content": "Paris"}]
        expected = tokenizer.apply_chat_template(whole)["input_ids"]
        row = list(task.template.encode(tokenizer, example, "Paris", 500).ids)
        assert row == expected[: len(row)] and row[-1] == tokenizer.eos_token_id


@pytest.mark.sample
def test_replies_in_a_chat_are_those_of_transformers(tmp_path: Path) -> None:
    task, tokenizer, model = _chats(tmp_path), real_model.tokenizer(), world.model(REAL)
    method, rng = parse_one("hard_prompt"), torch.Generator().manual_seed(0)
    bare = Adaptation(method, method.init(model, task, rng), task.template, base_of(model))
    replies = generate(model, [Request(bare, example, 12) for example in task.test])
    plain = real_model.plain()
    for example, reply in zip(task.test, replies, strict=True):
        asked = [{"role": "user", "content": example.source}]
        given = tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            found = plain.generate(**given, max_new_tokens=12, do_sample=False)
        tokens = found[0, given["input_ids"].shape[1] :].tolist()
        end = tokenizer.eos_token_id
        assert list(reply.tokens) == (tokens[: tokens.index(end)] if end in tokens else tokens)
        assert reply.tokens, "an answer, and not its end alone"
