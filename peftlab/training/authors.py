"""Who writes instructions for a search: the base itself, another local model, or an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

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
        return _from_endpoint(author.removeprefix(OPENAI), asked, seed)
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


def _from_endpoint(name: str, asked: Sequence[str], seed: int) -> list[Written]:
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
            usage = reply.usage
            tokens = usage.total_tokens if usage is not None else 0
            text = (reply.choices[0].message.content or "") if reply.choices else ""
            written.append(Written(text, tokens))
    except openai.OpenAIError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"reflection_lm={OPENAI}{name} does not answer ({first}). Check OPENAI_BASE_URL and "
            "OPENAI_API_KEY; the same command goes on with what was found until then."
        ) from error
    return written
