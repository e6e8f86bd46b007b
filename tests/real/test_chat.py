"""Chats on the model that PEFTLAB_REAL_MODEL names, held against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from peftlab.frozen import named
from peftlab.frozen.model import FrozenLM
from peftlab.generation import Request, generate
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.hard_prompt import unadapted
from peftlab.serve import Chat
from peftlab.serve import prompt as asking
from peftlab.tasks import Example, Task, Template
from peftlab.tasks.chat import frame
from peftlab.tasks.fit import fitted
from peftlab.training import TrainConfig, train
from tests.real_model import FOLDER

TEXTS = [
    "What is the capital of France?",
    "#Person1#: Shall we go out?\n#Person2#: Sorry, I have to work tonight.\n",
    "  def f(x):\n    return x  # élan, 東京, 🙂",
]


@pytest.fixture(scope="module")
def model() -> FrozenLM:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    if not tokenizer.chat_template:
        pytest.skip(f"the tokenizer of {FOLDER} has no chat template")
    return named.load(FOLDER, "cpu")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Eight rows of own data, in columns that say what kind of task they are."""
    lines = [{"dialogue": f"#Person1#: I am {i}.", "summary": f"It is {i}."} for i in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return Task.load(path, limit=8)


def rendered(model: FrozenLM, *texts: str) -> list[int]:
    """As transformers frames a user's message, a reply, a message, …"""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    made: Any = model.tokenizer.apply_chat_template(
        turns, add_generation_prompt=len(texts) % 2 == 1, return_dict=False, enable_thinking=False
    )
    return list(made)


@pytest.mark.sample
def test_rows_are_what_transformers_renders(model: FrozenLM, task: Task) -> None:
    template = fitted(task, model.tokenizer).template
    assert template.frame == frame(model.tokenizer)
    for text in TEXTS:
        example = Example(text, ())
        row = template.encode(model.tokenizer, example, "Yes, it is.", model.shape.context)
        assert list(row.ids[: row.target_start]) == rendered(model, text)
        whole = rendered(model, text, "Yes, it is.")
        assert list(row.ids) == whole[: len(row.ids)], "but for what follows the reply's end"
        few = template.with_exemplars([task.train[1]])
        asked = few.encode(model.tokenizer, example, None, model.shape.context)
        shown = task.train[1].source, task.train[1].targets[0]
        assert list(asked.ids) == rendered(model, *shown, text)


@pytest.mark.sample
def test_a_hard_prompt_answers_as_transformers_generates(model: FrozenLM, task: Task) -> None:
    task = fitted(task, model.tokenizer)
    method = parse_one("hard_prompt")
    state = method.init(model, task, torch.Generator())
    assert state.text["instruction"] == "Summarize the following text."
    adaptation = Adaptation(method, state, task.template, base_of(model))
    replies = generate(model, [Request(adaptation, text, 8) for text in TEXTS[:2]])
    plain = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    for text, reply in zip(TEXTS, replies, strict=False):
        ids = torch.tensor([rendered(model, f"Summarize the following text.\n{text}")])
        options: Any = {"max_new_tokens": 8, "do_sample": False}
        made = plain.generate(ids, attention_mask=torch.ones_like(ids), **options)
        own = made[0, ids.shape[1] :].tolist()
        assert list(reply.tokens) == own[: len(reply.tokens)] and len(reply.tokens) >= 1


def test_an_adapter_answers_the_same_under_another_chat_template(
    model: FrozenLM, task: Task, tmp_path: Path
) -> None:
    config = TrainConfig(steps=1, batch_size=2, validation_limit=2)
    train(model, parse_one("prompt_tuning:length=2"), task, config).adaptation.save(tmp_path / "a")
    loaded = Adaptation.load(tmp_path / "a", model)
    before = generate(model, [Request(loaded, TEXTS[0], 6)])
    own = model.tokenizer.chat_template
    try:
        model.tokenizer.chat_template = None
        assert generate(model, [Request(loaded, TEXTS[0], 6)]) == before
        template = loaded.edits(model).template
        assert template is not None
        asked = asking.encode(template, model, Chat((("user", TEXTS[0]),)))
    finally:
        model.tokenizer.chat_template = own
    assert list(asked.ids) == [-1, -2, *rendered(model, TEXTS[0])]


def test_the_bare_base_completes_raw_text(model: FrozenLM) -> None:
    template = unadapted(model).template
    assert template == Template("{source}{target}")
    raw = model.tokenizer(TEXTS[0])["input_ids"]
    assert list(asking.encode(template, model, TEXTS[0]).ids) == raw
    asked = asking.encode(template, model, Chat((("user", TEXTS[0]),)))
    assert list(asked.ids) == rendered(model, TEXTS[0])
