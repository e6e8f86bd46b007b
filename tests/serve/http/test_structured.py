"""`response_format` and `structured_outputs` by the official client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel, Field

import peftlab as pl
from peftlab.methods.hard_prompt import unadapted
from peftlab.serve import Library
from tests.serve.http.server import serving
from tests.serve.world import sources


class Item(BaseModel, extra="forbid"):
    name: str = Field(max_length=8)
    count: int = Field(ge=0, le=99)


@pytest.fixture(scope="module")
def demo() -> Iterator[openai.OpenAI]:
    """The demo base, whose tokenizer writes JSON."""
    model = pl.load("demo")
    library = Library(model)
    library.load("demo", unadapted(model))
    while library.load_one():
        pass
    with serving(library, capacity=200) as running, running.openai() as opened:
        yield opened


def item() -> dict[str, Any]:
    schema = {"name": "item", "schema": Item.model_json_schema(), "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def test_a_json_schema(demo: openai.OpenAI) -> None:
    asked: Any = {"model": "demo", "prompt": "Tea, 3 of it:", "max_tokens": 150}
    own, ended = {"response_format": item()}, []
    for more in ({}, {"temperature": 1.0, "seed": 2}):
        completion = demo.completions.create(**asked, **more, extra_body=own)
        (choice,) = completion.choices
        if choice.finish_reason == "stop":
            Item.model_validate_json(choice.text)
        streamed = demo.completions.create(**asked, **more, extra_body=own, stream=True)
        assert "".join(chunk.choices[0].text for chunk in streamed) == choice.text
        ended.append(choice.finish_reason == "stop")
    assert any(ended)
    whole = demo.completions.create(
        **asked, extra_body={"structured_outputs": {"json": Item.model_json_schema()}}
    )
    again = demo.completions.create(**asked, extra_body=own)
    assert whole.choices[0].text == again.choices[0].text


@pytest.mark.parametrize(
    ("asked", "pattern"),
    [
        ({"regex": "(red|blue) cat"}, "(red|blue) cat"),
        ({"choice": ["red", "blue house"]}, "red|blue house"),
        ({"grammar": 'start: "red" | "green"'}, "red|green"),
    ],
)
def test_the_other_kinds(client: openai.OpenAI, asked: dict[str, Any], pattern: str) -> None:
    completion = client.completions.create(
        model="a9", prompt=sources()[:2], max_tokens=40, extra_body={"structured_outputs": asked}
    )
    for choice in completion.choices:
        assert re.fullmatch(pattern, choice.text) and choice.finish_reason == "stop"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"response_format": {"type": "yaml"}}, "json_object or json_schema was expected"),
        ({"response_format": {"type": "json_schema"}}, "was expected to hold a name and a schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}}, "JSON Schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "x": 1}}},
            "'x'",
        ),
        ({"response_format": {"type": "json_object"}}, "no token for it|cannot be followed"),
        ({"structured_outputs": {"regex": "("}}, "does not compile"),
        ({"structured_outputs": {"regex": 3}}, "a text was expected"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "one of json"),
        ({"structured_outputs": {"tags": "a"}}, "one of json"),
        ({"structured_outputs": {"choice": "ab"}}, "texts were expected"),
        ({"structured_outputs": {"regex": "red"}, "min_tokens": 2}, "leave min_new_tokens out"),
        (
            {
                "response_format": {"type": "json_schema", "json_schema": {"schema": {}}},
                "structured_outputs": {"regex": "red"},
            },
            "one was expected",
        ),
    ],
)
def test_bad_input(client: openai.OpenAI, body: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        client.completions.create(model="a9", prompt="a cat", max_tokens=9, extra_body=body)


def test_asking_for_text_asks_nothing(client: openai.OpenAI) -> None:
    asked: Any = {"model": "a9", "prompt": sources()[0], "max_tokens": 8}
    plain = client.completions.create(**asked)
    for body in ({"response_format": {"type": "text"}}, {"structured_outputs": {}}):
        assert client.completions.create(**asked, extra_body=body).choices[0].text == (
            plain.choices[0].text
        )
