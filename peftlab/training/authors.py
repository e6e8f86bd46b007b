"""Who writes instructions for a search: the base itself, another local model, or an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from peftlab.errors import InputError
from peftlab.generation import Request, generate
from peftlab.methods.hard_prompt import unadapted
from peftlab.methods.search.transcript import OPENAI
from peftlab.tasks import Decoding, Example
from peftlab.tasks.chat import frame, has_template

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

_WRITTEN = 256  # most tokens of what is written
_SECONDS, _TRIES = 120.0, 3
_CHARACTERS = 8000  # of a reply that are read


class Written(NamedTuple):
    """What was written, and the tokens of request and reply."""

    text: str
    tokens: int


def write(model: FrozenLM, author: str, asked: Sequence[str], seed: int) -> list[Written]:
    """One text to each request, drawn at temperature 1.

    Args:
        author: "base", a folder, or "openai/NAME" behind OPENAI_BASE_URL with OPENAI_API_KEY.

    Raises:
        InputError: the author is not there, or does not answer.
    """
    if author.startswith(OPENAI):
        return _from_endpoint(model, author.removeprefix(OPENAI), asked, seed)
    return _locally(model if author == "base" else _loaded(author), asked, seed)


@lru_cache(maxsize=1)
def _loaded(folder: str) -> FrozenLM:
    from peftlab.frozen import named

    return named.load(folder, named.device_name("auto"), "fp32")


def _locally(model: FrozenLM, asked: Sequence[str], seed: int) -> list[Written]:
    bare = unadapted(model)
    if has_template(model.tokenizer):
        bare = replace(bare, template=bare.template.framed(frame(model.tokenizer)))
    # What is asked for stands at the end of a request.
    bare = replace(bare, template=replace(bare.template, truncate="start"))
    most = min(_WRITTEN, model.shape.context // 4)
    requests = [Request(bare, Example(text, ("",)), most) for text in asked]
    replies = generate(model, requests, Decoding(sample=True), seed=seed)
    return [Written(one.text, one.prompt_tokens + len(one.tokens)) for one in replies]


def _from_endpoint(model: FrozenLM, name: str, asked: Sequence[str], seed: int) -> list[Written]:
    import openai

    written = []
    try:
        client = openai.OpenAI(timeout=_SECONDS, max_retries=_TRIES)
        for at, request in enumerate(asked):
            reply = client.chat.completions.create(
                model=name,
                messages=[{"role": "user", "content": request}],
                temperature=1.0,
                seed=(seed + at) % 2**31,
            )
            text, usage = _said(reply)
            count = usage if usage is not None else _tokens(model, request) + _tokens(model, text)
            written.append(Written(text, count))
    except (openai.OpenAIError, _NoCompletion) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"reflection_lm={OPENAI}{name} does not answer ({first}). Check OPENAI_BASE_URL and "
            "OPENAI_API_KEY; the same command goes on with what was found until then."
        ) from error
    return written


class _NoCompletion(Exception):
    """What came is no chat completion."""


def _said(reply: Any) -> tuple[str, int | None]:
    """The text of a chat completion, and its tokens where it tells them.

    Raises:
        _NoCompletion: it is something else, as it comes from addresses that are none.
    """
    choices = getattr(reply, "choices", None)
    message = (
        getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    )
    text = "" if message is None else message.content
    if message is None or not isinstance(text, str | None):
        raise _NoCompletion(f"a chat completion was expected, and {str(reply)!r:.80} came")
    count = getattr(getattr(reply, "usage", None), "total_tokens", None)
    encodable = (text or "").encode("utf-8", "replace").decode()  # no halves of characters
    return encodable[:_CHARACTERS], count if isinstance(count, int) else None


def _tokens(model: FrozenLM, text: str) -> int:
    return len(model.tokenizer.encode(text, add_special_tokens=False))
