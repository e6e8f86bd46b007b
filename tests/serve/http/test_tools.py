"""Tools by the official client: shown in the template's own form, and their calls read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from peftlab.frozen.model import FrozenLM
from peftlab.methods.hard_prompt import unadapted
from peftlab.serve import Library
from tests.models import tiny
from tests.serve.http.server import serving
from tests.tasks.test_calls import HERMES, PYTHON
from tests.tasks.tokenizers_for_tests import byte_level

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Of no use.",
            "parameters": {
                "type": "object",
                "properties": {"zone": {"enum": ["utc", "cet"]}, "days": {"type": "boolean"}},
                "required": ["zone", "days"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("clock", "calendar")
]
ASKED: Any = {
    "model": "base", "messages": [{"role": "user", "content": "When?"}], "max_tokens": 200,
}  # fmt: skip


END = str(byte_level(chat=HERMES).eos_token)
ANSWER: Any = {"role": "tool", "tool_call_id": "c", "content": ""}


def called(arguments: str) -> Any:
    function = {"name": "clock", "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}


def described(words: str, parameters: Any = None) -> Any:
    function = {"name": "clock", "description": words, "parameters": parameters or {}}
    return [{"type": "function", "function": function}]


def deep(levels: int) -> Any:
    made: Any = {}
    for _ in range(levels):
        made = {"properties": made}
    return made


def opened(jinja: str) -> Iterator[openai.OpenAI]:
    tokenizer = byte_level(chat=jinja)
    long = tiny("llama", vocab_size=len(tokenizer), max_position_embeddings=1024)
    library = Library(FrozenLM(long, tokenizer, "base"))
    library.load("bare", unadapted(library.model))
    while library.load_one():
        pass
    with serving(library, capacity=1000, slots=2) as running, running.openai() as client:
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    yield from opened(HERMES)


@pytest.mark.parametrize("choice", ["required", "calendar"])
def test_a_call_that_has_to_be_is_one(client: openai.OpenAI, choice: str) -> None:
    """Its arguments are of the tool's schema; streamed it is the same."""
    asked: Any = "required"
    if choice != "required":
        asked = {"type": "function", "function": {"name": choice}}
    for more in ({}, {"temperature": 1.0, "seed": 4}):
        given: Any = {**ASKED, **more, "tools": TOOLS, "tool_choice": asked}
        reply = client.chat.completions.create(**given).choices[0]
        assert reply.finish_reason == "tool_calls" and reply.message.content is None
        (call,) = reply.message.tool_calls or []
        assert call.type == "function"
        assert call.function.name in (("clock", "calendar") if choice == "required" else (choice,))
        found = json.loads(call.function.arguments)
        assert set(found) == {"zone", "days"} and found["zone"] in ("utc", "cet")
        chunks = list(client.chat.completions.create(**given, stream=True))
        told = [one for c in chunks for one in (c.choices[0].delta.tool_calls or [])]
        assert [(t.function.name, t.function.arguments) for t in told if t.function] == [
            (call.function.name, call.function.arguments)
        ]
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_strict_tools_leave_text_free(client: openai.OpenAI) -> None:
    """A model that calls nothing says what it says without them."""
    short = ASKED | {"max_tokens": 6}
    strict = [{**t, "function": {**t["function"], "strict": True}} for t in TOOLS]
    free = client.chat.completions.create(**short, tools=TOOLS)
    held = client.chat.completions.create(**short, tools=strict)
    assert held.choices[0].message.content == free.choices[0].message.content


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"response_format": {"type": "json_object"}}, "strict: true asks for a structure, and"),
        ({"extra_body": {"min_tokens": 5}}, "strict: true asks for a structure: min_new_tokens"),
    ],
)
def test_who_asks_for_a_structure_is_named(
    client: openai.OpenAI, more: dict[str, Any], said: str
) -> None:
    strict = [{**TOOLS[0], "function": {**TOOLS[0]["function"], "strict": True}}]
    with pytest.raises(openai.BadRequestError, match=said):
        client.chat.completions.create(**ASKED, tools=strict, **more)
    odd = [{**TOOLS[0], "function": {"name": "a", "strict": True, "parameters": {"not": {}}}}]
    with pytest.raises(openai.BadRequestError, match=r"function.parameters does not compile"):
        client.chat.completions.create(**ASKED, tools=odd)


def test_parameters_may_refer_to_their_own_definitions(client: openai.OpenAI) -> None:
    """As pydantic writes them."""
    parameters = {
        "$defs": {"Zone": {"enum": ["utc", "cet"]}},
        "type": "object", "properties": {"zone": {"$ref": "#/$defs/Zone"}}, "required": ["zone"],
        "additionalProperties": False,
    }  # fmt: skip
    tools: Any = [*TOOLS, {"type": "function", "function": {"name": "a", "parameters": parameters}}]
    choice: Any = {"type": "function", "function": {"name": "a"}}
    for given in (choice, "required"):
        reply = client.chat.completions.create(**ASKED, tools=tools, tool_choice=given).choices[0]
        (call,) = reply.message.tool_calls or []
        assert json.loads(call.function.arguments)["zone"] in ("utc", "cet")


def test_where_none_is_called_the_text_is_the_reply(client: openai.OpenAI) -> None:
    """And the prompt shows the tools, unless there are none."""
    short = ASKED | {"max_tokens": 6}
    plain = client.chat.completions.create(**short)
    auto = client.chat.completions.create(**short, tools=TOOLS)
    assert plain.usage is not None and auto.usage is not None
    assert auto.usage.prompt_tokens > plain.usage.prompt_tokens + 100
    assert auto.choices[0].message.tool_calls is None
    none = client.chat.completions.create(**short, tools=TOOLS, tool_choice="none")
    assert none.choices[0].message.content == auto.choices[0].message.content
    streamed = client.chat.completions.create(**short, tools=TOOLS, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert text == auto.choices[0].message.content


def test_earlier_calls_and_what_tools_answer_are_read(client: openai.OpenAI) -> None:
    call = {
        "id": "call_1", "type": "function", "function": {"name": "clock", "arguments": '{"a": 1}'},
    }  # fmt: skip
    turns = [
        *ASKED["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "nine"},
    ]
    short = ASKED | {"max_tokens": 4, "messages": turns}
    told = client.chat.completions.create(**short, tools=TOOLS)
    turns[1] = {"role": "assistant", "content": ""}
    without = client.chat.completions.create(**short, tools=TOOLS)
    assert told.usage is not None and without.usage is not None
    assert told.usage.prompt_tokens > without.usage.prompt_tokens + 20
    turns[2]["content"] = ""  # of a tool that has nothing to say
    assert client.chat.completions.create(**short, tools=TOOLS).choices


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tool_choice": "required"}, "there are none"),
        ({"tools": TOOLS, "tool_choice": "any"}, "none, auto, required or a function"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "none of the tools",
        ),
        ({"tools": [{"type": "code"}]}, r"tools\.0"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, r"tools\.0\.function\.name"),
        (
            {
                "tools": TOOLS,
                "tool_choice": "required",
                "response_format": {"type": "json_object"},
            },
            "one was expected",
        ),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "a", "parameters": {"type": "x"}}}
                ],
                "tool_choice": "required",
            },
            "does not compile",
        ),
        ({"messages": [{"role": "assistant"}]}, "content is missing"),
        ({"messages": [called('{"a": "\\ud800"}'), ANSWER]}, "half of a character"),
        ({"messages": [called("[" * 2000), ANSWER]}, "no JSON"),
        ({"messages": [*ASKED["messages"], ANSWER | {"name": END}]}, "a special token"),
        ({"messages": [*ASKED["messages"], ANSWER | {"tool_call_id": END}]}, "a special token"),
        ({"tools": described(END)}, "a special token"),
        (
            {"extra_body": {"chat_template_kwargs": {"x": deep(400)}}, "tools": described(END)},
            "a special token",
        ),
        (
            {"tools": described("x", deep(600)), "tool_choice": "required"},
            "too deep|nested|compile",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [{"function": {"name": "a", "arguments": "{"}}],
                    }
                ]
            },
            "arguments of a call are no JSON",
        ),
    ],
)
def test_bad_input(client: openai.OpenAI, change: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        client.chat.completions.create(**(ASKED | change))


def test_templates_see_which_call_a_tool_answers() -> None:
    shown = HERMES.replace("{{ m.content or '' }}", "{{ m.content or '' }}{{ m.tool_call_id }}")
    assert shown != HERMES
    counts = []
    for client in opened(shown):
        for name in ("a", "a much longer name of a call"):
            call = {"id": name, "function": {"name": "clock", "arguments": "{}"}}
            said = {"role": "assistant", "content": "", "tool_calls": [call]}
            told = [*ASKED["messages"], said, {**ANSWER, "tool_call_id": name, "content": "nine"}]
            asked: Any = {**ASKED, "messages": told, "max_tokens": 2, "tools": TOOLS}
            usage = client.chat.completions.create(**asked).usage
            assert usage is not None
            counts.append(usage.prompt_tokens)
    assert counts[1] > counts[0] + 5


def test_a_base_whose_template_writes_no_json_refuses_tools() -> None:
    for client in opened(PYTHON):
        with pytest.raises(openai.BadRequestError, match="not as JSON"):
            client.chat.completions.create(**ASKED, tools=TOOLS)
        client.chat.completions.create(**ASKED, tools=[])
