"""`/v1/chat/completions` by the official client, on a base whose tokenizer has a chat template."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import openai
import pytest

from peftlab.frozen.model import FrozenLM
from peftlab.serve import Library
from peftlab.tasks import Template
from tests.laws import world as laws
from tests.models import tiny
from tests.serve.http.server import counts, serving
from tests.serve.world import adaptation, sources

_TEMPLATE = (
    "{% if mood %}{{ mood }} {% endif %}"
    "{% for it in messages %}<bos>{{ it.role }}: {{ it.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant: {% endif %}"
)
TURNS: Any = [
    {"role": "system", "content": "say it"},
    {"role": "user", "content": "the cat sleeps"},
    {"role": "assistant", "content": "near the tree"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "dog"}],
    },
]


@lru_cache
def tokenizer() -> Any:
    made = copy.deepcopy(laws.tokenizer())
    made.chat_template = _TEMPLATE
    return made


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    """own: trained on a template of its own. bare: on nothing but the source. chat: as a chat."""
    library = Library(FrozenLM(tiny("gpt2"), tokenizer(), "talks"))
    made = adaptation("a9", 0)
    chat, bare = Template("{source}{target}", chat=True), Template("{source}{target}")
    library.load("own", made)
    library.load("bare", replace(made, template=bare))
    library.load("chat", replace(made, template=chat))
    library.load("soft", replace(adaptation("a2", 0), template=bare))
    while library.load_one():
        pass
    with serving(library) as running, running.openai() as opened:
        yield opened


def rendered(turns: list[dict[str, str]]) -> list[int]:
    return tokenizer().apply_chat_template(turns, add_generation_prompt=True)["input_ids"]


@pytest.mark.parametrize("name", ["talks", "bare", "chat", "soft"])
def test_a_conversation_is_rendered_by_the_tokenizers_own_template(
    client: openai.OpenAI, name: str
) -> None:
    plain = [*TURNS[:3], {"role": "user", "content": "the dog"}]
    completion = client.chat.completions.create(model=name, messages=TURNS, max_tokens=8)
    expected = client.completions.create(model=name, prompt=rendered(plain), max_tokens=8)
    (choice,) = completion.choices
    assert choice.message.content == expected.choices[0].text
    assert choice.message.role == "assistant" and completion.object == "chat.completion"
    assert counts(completion.usage) == counts(expected.usage)
    developer = [{"role": "developer", "content": "say it"}, *TURNS[1:]]
    again = client.chat.completions.create(model=name, messages=developer, max_tokens=8)
    assert again.choices[0].message.content == choice.message.content


def test_an_adapter_with_a_template_of_its_own_takes_one_message_as_its_source(
    client: openai.OpenAI,
) -> None:
    one: Any = [{"role": "user", "content": sources()[0]}]
    completion = client.chat.completions.create(model="own", messages=one, max_completion_tokens=8)
    expected = client.completions.create(model="own", prompt=sources()[0], max_tokens=8)
    assert completion.choices[0].message.content == expected.choices[0].text
    with pytest.raises(openai.BadRequestError, match="has a place for one source"):
        client.chat.completions.create(model="own", messages=TURNS, max_tokens=8)


def test_a_single_message_of_a_chat_adapter_is_its_training_prompt(client: openai.OpenAI) -> None:
    one: Any = [{"role": "user", "content": sources()[0]}]
    asked = client.chat.completions.create(model="chat", messages=one, max_tokens=8)
    expected = client.completions.create(model="chat", prompt=sources()[0], max_tokens=8)
    assert asked.choices[0].message.content == expected.choices[0].text
    assert counts(asked.usage) == counts(expected.usage)


def test_a_stream_of_n_replies(client: openai.OpenAI) -> None:
    asked: Any = {"model": "talks", "messages": TURNS, "max_tokens": 8, "n": 2, "seed": 3}
    asked |= {"temperature": 1.2, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked)
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=options))
    assert counts(chunks[-1].usage) == counts(whole.usage)
    assert whole.choices[0].message.content != whole.choices[1].message.content
    for choice in whole.choices:
        own = [it for chunk in chunks for it in chunk.choices if it.index == choice.index]
        assert own[0].delta.role == "assistant"
        assert "".join(it.delta.content or "" for it in own) == choice.message.content
        assert own[-1].finish_reason == choice.finish_reason
        assert choice.logprobs is not None and choice.logprobs.content
        told = [t for it in own if it.logprobs for t in it.logprobs.content or []]
        for token, expected in zip(told, choice.logprobs.content, strict=True):
            # The two replies may have met in one batch in one call and not in the other.
            for one, other in zip(
                (token, *token.top_logprobs), (expected, *expected.top_logprobs), strict=True
            ):
                assert (one.token, one.bytes) == (other.token, other.bytes)
                assert one.logprob == pytest.approx(other.logprob, abs=1e-5)
            assert token.bytes is not None and bytes(token.bytes).decode() == token.token
            assert len(token.top_logprobs) == 2
            assert token.logprob <= token.top_logprobs[0].logprob + 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, "prompt is empty"),
        ({"messages": [{"role": "user"}]}, r"messages\.0\.content is missing"),
        ({"messages": [{"role": "pirate", "content": "x"}]}, r"messages\.0\.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "a list of parts of type text",
        ),
        (
            {"messages": [{"role": "user", "content": "x<eos>"}, *TURNS[2:]]},
            "'<eos>', which is a special token",
        ),
        ({"tools": [{"type": "function"}]}, r"tools\.0\.function is missing"),
        ({"extra_body": {"chat_template_kwargs": {"tokenize": False}}}, "tokenize is no setting"),
        ({"response_format": {"type": "yaml"}}, "json_object or json_schema was expected"),
        ({"top_logprobs": 2}, "allowed where logprobs is true"),
        ({"max_tokens": 60}, "there is room for"),
        ({"n": 65}, "at most 64"),
    ],
)
def test_bad_input(client: openai.OpenAI, change: dict[str, Any], words: str) -> None:
    asked: Any = {"model": "talks", "messages": TURNS, "max_tokens": 4}
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(**(asked | change))


def test_settings_of_the_template_reach_it(client: openai.OpenAI) -> None:
    """And are refused by an adapter that keeps the frame of its training."""
    asked: Any = {"model": "bare", "messages": TURNS, "max_tokens": 4}
    plain = client.chat.completions.create(**asked)
    told = client.chat.completions.create(
        **asked, extra_body={"chat_template_kwargs": {"mood": "the old tree"}}
    )
    more = len(tokenizer()("the old tree ", add_special_tokens=False)["input_ids"])
    assert plain.usage is not None and told.usage is not None
    assert told.usage.prompt_tokens == plain.usage.prompt_tokens + more
    with pytest.raises(openai.BadRequestError, match="keeps the chat frame"):
        client.chat.completions.create(
            model="chat", messages=TURNS[1:2], max_tokens=4,
            extra_body={"chat_template_kwargs": {"mood": "x"}},
        )  # fmt: skip


def test_without_a_chat_template_there_is_no_chat(server: Any) -> None:
    with server.openai() as client, pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="a9", messages=TURNS[1:2], max_tokens=4)
