"""A reply in a chat ends where transformers' `generate` ends it, whoever makes it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from peftlab.frozen.model import FrozenLM
from peftlab.generation import Request, generate
from peftlab.guests import AdaptedGuest, Guest, PlainBase
from peftlab.guests.model import GuestModel
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.serve import Chat, Engine, Library, Limits, ServeRequest
from peftlab.serve import prompt as asking
from peftlab.tasks import Decoding, Example, Task, Template
from peftlab.tasks.chat import frame
from tests.laws import world
from tests.models import tiny
from tests.serve.world import run
from tests.tasks.tokenizers_for_tests import SMOL, byte_level

SOURCES = ("the cat", "a coffee shop in the city centre", "English food", "mat: 3", "it")
LENGTH = 12
SETTINGS = [
    (Decoding(), {}),
    (Decoding(min_new_tokens=5), {"min_new_tokens": 5}),
    (Decoding(beams=3), {"num_beams": 3}),
]
each_decoding = pytest.mark.parametrize(("decoding", "options"), SETTINGS)


def _prompt(tokenizer: Any, source: str) -> torch.Tensor:
    turns = [{"role": "user", "content": source}]
    row = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    return torch.tensor([row])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny instruction model whose generation defaults name three ends, as Qwen2.5's name two.

    One of them is a token that it often writes, so that replies do end there.
    """
    place, tokenizer = tmp_path_factory.mktemp("ends"), byte_level(chat=SMOL)
    model = tiny("gpt2", vocab_size=len(tokenizer)).eval()
    free = model.generate(_prompt(tokenizer, SOURCES[0]), max_new_tokens=LENGTH, eos_token_id=None)
    written = int(free[0, -LENGTH:][3])
    ends = [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id, written]
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> FrozenLM:
    return FrozenLM.load(folder)


def _task(model: FrozenLM) -> Task:
    template = Template("{source}{target}").framed(frame(model.tokenizer))
    task = copy.copy(world.task())
    object.__setattr__(task, "template", template)
    object.__setattr__(task, "max_new_tokens", LENGTH)
    return task


def _expected(folder: Path, model: FrozenLM, **options: Any) -> list[list[int]]:
    """What transformers makes of the checkpoint as it lies there, without the end."""
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    ends = {*plain.generation_config.eos_token_id}
    replies = []
    for source in SOURCES:
        row = _prompt(model.tokenizer, source)
        made = plain.generate(row, max_new_tokens=LENGTH, do_sample=False, **options)
        tokens = made[0, row.shape[1] :].tolist()
        replies.append(tokens[: next((i for i, t in enumerate(tokens) if t in ends), LENGTH)])
    assert any(len(tokens) < LENGTH for tokens in replies), "the test needs replies that end"
    return replies


@each_decoding
def test_our_own(
    folder: Path, model: FrozenLM, decoding: Decoding, options: dict[str, Any]
) -> None:
    task, method = _task(model), parse_one("hard_prompt:instruction=none")
    state = method.init(model, task, torch.Generator())
    adaptation = Adaptation(method, state, task.template, base_of(model))
    requests = [Request(adaptation, source, LENGTH) for source in SOURCES]
    replies = generate(model, requests, decoding, batch_size=4)
    expected = _expected(folder, model, **options)
    assert [list(reply.tokens) for reply in replies] == expected
    ended = ["end" if len(tokens) < LENGTH else "length" for tokens in expected]
    assert [reply.finished for reply in replies] == ended


@each_decoding
def test_guests(folder: Path, model: FrozenLM, decoding: Decoding, options: dict[str, Any]) -> None:
    """A LoRA of PEFT that changes nothing yet."""
    guest = GuestModel(PlainBase.load(folder), Guest.parse("peft:lora,target_modules=c_attn+"), 1)
    examples = [Example(source, ()) for source in SOURCES]
    replies = AdaptedGuest(guest).replies(_task(model), examples, decoding, max_length=None)
    expected = _expected(folder, model, **options)
    assert [list(reply.tokens) for reply in replies] == expected


@pytest.mark.parametrize("framed", [True, False])
def test_the_server(folder: Path, model: FrozenLM, framed: bool) -> None:
    """An adapter that was trained in the chat, and the bare base's answers to chats."""
    task, method = _task(model), parse_one("hard_prompt:instruction=none")
    template = task.template if framed else Template("{source}{target}")
    state = method.init(model, task, torch.Generator())
    library = Library(model)
    library.load("it", Adaptation(method, state, template, base_of(model)))
    while library.load_one():
        pass
    engine = Engine(model, library, Limits(slots=4, capacity=90))
    asked = [ServeRequest("it", Chat((("user", source),)), LENGTH) for source in SOURCES]
    tickets = [engine.submit(request) for request in asked]
    run(engine)
    replies = [[token.id for token in ticket.result(0).tokens] for ticket in tickets]
    assert replies == _expected(folder, model)


def test_the_ends_are_kept_with_the_frame_and_are_part_of_a_run(model: FrozenLM) -> None:
    template = _task(model).template
    own = template.frame
    assert own is not None and own.stops[0] == "<|endoftext|>" and len(own.stops) == 2
    assert own.told().startswith("a reply ends with <|im_end|> or <|endoftext|> or ")
    assert Template.from_dict(template.to_dict()) == template
    before = template.framed(frame_of_before(template))
    assert before.identity() != template.identity()
    assert "stops" not in before.identity()["frame"], "where there are none, nothing is new"
    turns = Chat((("user", "the cat"), ("assistant", "a"), ("user", "the mat")))
    asked = asking.encode(before, model, turns)
    assert asked == asking.encode(template, model, turns), "the same text stands round messages"


def frame_of_before(template: Template) -> Any:
    """As adapters had it before further ends were known."""
    stored = template.to_dict()["frame"]
    del stored["stops"]
    return type(template.frame).from_dict(stored)


def test_a_target_loses_whatever_ends_replies(model: FrozenLM) -> None:
    template = _task(model).template
    row = template.target_ids(model.tokenizer, "a cat<|endoftext|><|im_end|>")
    assert row == template.target_ids(model.tokenizer, "a cat")


def test_an_end_that_a_tokenizer_lacks_ends_nothing(model: FrozenLM) -> None:
    own = frame(model.tokenizer)
    stored = type(own)(head="", bridge="b", lead="", end="<|im_end|>", stops=("<|none|>",))
    (end,) = stored.end_ids(model.tokenizer)
    assert end == own.end_id(model.tokenizer)
