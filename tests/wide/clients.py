"""A server asked by the clients that people have: JSON in, JSON out, by a Python that has these.

In: url (with /v1), model, prompt, tokens. Out: by client what it was answered, whole, in pieces,
and as an object of a schema.
"""

import json
import sys
from typing import Literal

import litellm
import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field


class Answer(BaseModel, extra="forbid"):
    """Of which a small model writes one in a few tokens."""

    colour: Literal["red", "blue"]
    count: int = Field(ge=0, le=9)


FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "strict": True, "schema": Answer.model_json_schema()},
}


def of_openai(asked: dict) -> dict:
    """OpenAI's own, through `parse` for the object."""
    client = openai.OpenAI(base_url=asked["url"], api_key="unused", max_retries=0)
    common = {
        "model": asked["model"],
        "messages": [{"role": "user", "content": asked["prompt"]}],
        "max_tokens": asked["tokens"],
    }
    whole = client.chat.completions.create(**common)
    pieces = client.chat.completions.create(**common, stream=True)
    parsed = client.chat.completions.parse(**common | {"max_tokens": 150}, response_format=Answer)
    return {
        "whole": whole.choices[0].message.content,
        "pieces": [chunk.choices[0].delta.content or "" for chunk in pieces],
        "object": parsed.choices[0].message.parsed.model_dump(),
    }


def of_langchain(asked: dict) -> dict:
    """LangChain's chat model."""
    how = {"base_url": asked["url"], "api_key": "unused", "model": asked["model"], "max_retries": 0}
    chat = ChatOpenAI(**how, max_tokens=asked["tokens"])
    structured = ChatOpenAI(**how, max_tokens=150).with_structured_output(
        Answer, method="json_schema"
    )
    return {
        "whole": chat.invoke(asked["prompt"]).content,
        "pieces": [chunk.content for chunk in chat.stream(asked["prompt"])],
        "object": structured.invoke(asked["prompt"]).model_dump(),
    }


def of_litellm(asked: dict) -> dict:
    """LiteLLM, to which any such server is `openai/NAME`."""
    common = {
        "model": f"openai/{asked['model']}",
        "api_base": asked["url"],
        "api_key": "unused",
        "messages": [{"role": "user", "content": asked["prompt"]}],
        "num_retries": 0,
    }
    whole = litellm.completion(**common, max_tokens=asked["tokens"])
    pieces = litellm.completion(**common, max_tokens=asked["tokens"], stream=True)
    parsed = litellm.completion(**common, max_tokens=150, response_format=FORMAT)
    return {
        "whole": whole.choices[0].message.content,
        "pieces": [chunk.choices[0].delta.content or "" for chunk in pieces],
        "object": json.loads(parsed.choices[0].message.content),
    }


def main() -> None:
    """Read, ask, write."""
    asked = json.load(sys.stdin)
    clients = {"openai": of_openai, "langchain": of_langchain, "litellm": of_litellm}
    json.dump({name: ask(asked) for name, ask in clients.items()}, sys.stdout)


if __name__ == "__main__":
    main()
