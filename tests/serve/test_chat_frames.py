"""An adapter that was trained in a chat answers from the frame that it has stored."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.frozen.model import FrozenLM
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.hard_prompt import unadapted
from peftlab.serve import Chat, Engine, Library, Limits, Reply, ServeRequest
from peftlab.serve import prompt as asking
from peftlab.tasks import Task, Template
from peftlab.tasks.chat import frame
from peftlab.tasks.task import Framing
from peftlab.training import TrainConfig, train
from tests.laws import world as laws
from tests.models import tiny
from tests.serve.world import run, sources

_CHAT = (
    "{% if messages[0].role != 'system' %}<bos>system: the sun shines<eos>{% endif %}"
    "{% for it in messages %}<bos>{{ it.role }}: {{ it.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant: {% endif %}"
)
_OTHER = _CHAT.replace("the sun shines", "rain falls on the road")
TALK = Chat((("user", "the cat"), ("assistant", "sings"), ("user", "the dog")))


def base(chat_template: str | None) -> FrozenLM:
    """The same weights, under a tokenizer with this chat template."""
    made = copy.deepcopy(laws.tokenizer())
    made.chat_template = chat_template
    return FrozenLM(tiny("gpt2"), made, "talks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt that was trained on a task whose rows stand in the chat by themselves."""
    plain = laws.task()
    asked = Framing(None, "{instruction}{source}{target}", plain.template.text)
    task: Task = replace(plain, framing=asked)
    config = TrainConfig(steps=2, batch_size=4, learning_rate=0.3)
    trained = train(base(_CHAT), parse_one("prompt_tuning:length=2"), task, config)
    place = tmp_path_factory.mktemp("adapter") / "soft"
    trained.adaptation.save(place)
    return place


def served(model: FrozenLM, folder: Path, source: Any) -> Reply:
    library = Library(model)
    library.load("soft", Adaptation.load(folder, model))
    while library.load_one():
        pass
    engine = Engine(model, library, Limits(capacity=90, slots=2))
    ticket = engine.submit(ServeRequest("soft", source, 6))
    run(engine)
    return ticket.result(0)


def test_it_is_stored_with_it(folder: Path) -> None:
    template = Adaptation.load(folder).template
    assert template.frame == frame(base(_CHAT).tokenizer)
    assert template.frame is not None and template.frame.system == "the sun shines"


@pytest.mark.parametrize("chat_template", [_OTHER, None])
@pytest.mark.parametrize("ask", [str, lambda text: Chat((("user", text),))])
def test_a_tokenizer_whose_template_changed_changes_nothing(
    folder: Path, chat_template: str | None, ask: Any
) -> None:
    for text in sources()[:3]:
        before, after = (served(base(chat), folder, ask(text)) for chat in (_CHAT, chat_template))
        assert before.tokens and [t.id for t in after.tokens] == [t.id for t in before.tokens]


def test_its_prompts_are_those_of_its_training(folder: Path) -> None:
    model, text = base(_OTHER), sources()[0]
    template = Adaptation.load(folder, model).edits(model).template
    assert template is not None
    own = base(_CHAT).tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    for source in (text, Chat((("user", text),))):
        assert asking.encode(template, model, source).ids == (-1, -2, *own)
        assert asking.ends(template, model.tokenizer, source) == template.end_ids(model.tokenizer)


@pytest.mark.parametrize("system", [None, "say it"])
def test_a_conversation_needs_the_template_that_made_the_frame(system: str | None) -> None:
    model = base(_CHAT)
    template = Template("{source}{target}").framed(frame(model.tokenizer, system))
    turns = [{"role": role, "content": text} for role, text in TALK.turns]
    opening = [] if system is None else [{"role": "system", "content": system}]
    own = model.tokenizer.apply_chat_template(
        opening + turns, add_generation_prompt=True, return_dict=False
    )
    assert list(asking.encode(template, model, TALK).ids) == own
    assert list(asking.encode(template, base(_OTHER), TALK).ids) == own, "its system is shown"
    for other in (_CHAT.replace("role }}:", "role }} says"), None):
        with pytest.raises(InputError, match="keeps the chat that it was trained in"):
            asking.encode(template, base(other), TALK)


def test_the_bare_base_completes_raw_text_and_answers_chats_in_the_frame() -> None:
    model = base(_CHAT)
    template, text = unadapted(model).template, "the old cat"
    raw = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert list(asking.encode(template, model, text).ids) == raw
    own = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert list(asking.encode(template, model, Chat((("user", text),))).ids) == own
