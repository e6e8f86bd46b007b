"""Prompts with their log-probabilities, as lm-evaluation-harness asks for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import torch

from peftlab.frozen.packing import Row, pack
from peftlab.generation import Request, generate
from peftlab.tasks import Decoding, Example
from tests.laws import world as laws
from tests.serve import world
from tests.serve.world import LONGEST, adaptation, alone, sources

TOKENS = [5, 17, 90, 33, 8, 64, 3, 7, 7, 101, 55, 20, 31, 44, 9, 12, 88, 40, 41, 77]


def chances(name: str, ids: list[int]) -> torch.Tensor:
    """Log-probabilities [T, V] of what follows each token, in one forward."""
    lm = laws.model("gpt2")
    edits = adaptation(name, 0).edits(lm)
    lead = [-(j + 1) for j in range(0 if edits.embeddings is None else len(edits.embeddings))]
    with torch.no_grad():
        logits = lm(pack([Row([*lead, *ids], 0, len(lead))], [edits]))
    return logits.float().log_softmax(-1)


def expected(name: str, ids: list[int]) -> list[float]:
    """Those of all tokens but the first."""
    found = chances(name, ids)
    return [float(found[i, token]) for i, token in enumerate(ids[1:])]


@pytest.mark.parametrize("name", ["a2", "a4", "a5", "a6", "a9", "a13"])
@pytest.mark.parametrize("max_tokens", [0, 1, 4])
def test_the_prompts_log_probabilities_are_the_models(
    client: openai.OpenAI, name: str, max_tokens: int
) -> None:
    """Longer than a step reads, twice, so that the second finds the first in the cache."""
    for _ in range(2):
        (choice,) = client.completions.create(
            model=name, prompt=TOKENS, max_tokens=max_tokens, logprobs=1, echo=True
        ).choices
        told = choice.logprobs
        assert (
            told is not None and told.token_logprobs is not None and told.top_logprobs is not None
        )
        assert len(told.token_logprobs) >= len(TOKENS)
        assert told.token_logprobs[0] is None and told.top_logprobs[0] is None  # type: ignore[comparison-overlap]
        found = told.token_logprobs[1 : len(TOKENS)]
        assert found == pytest.approx(expected(name, TOKENS), abs=1e-4)
        best = chances(name, TOKENS).max(-1).values[:-1].tolist()
        alternatives = [max(one.values()) for one in told.top_logprobs[1 : len(TOKENS)] if one]
        assert alternatives == pytest.approx(best, abs=1e-4)
        if max_tokens == 0:
            assert len(told.token_logprobs) == len(TOKENS) and choice.finish_reason == "length"
            assert choice.text == laws.tokenizer().decode(TOKENS)
            assert told.text_offset == [
                len(laws.tokenizer().decode(TOKENS[:i])) for i in range(len(TOKENS))
            ]


def test_beside_others_and_in_lists(client: openai.OpenAI) -> None:
    """The reply is what it is without; a text is told in its template."""
    prompt = [TOKENS, TOKENS[:7]]
    whole = client.completions.create(
        model="a9", prompt=prompt, max_tokens=1, logprobs=0, echo=True
    ).choices
    for choice, ids in zip(whole, prompt, strict=True):
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        found = choice.logprobs.token_logprobs[1 : len(ids)]
        assert found == pytest.approx(expected("a9", ids), abs=1e-4)
    text = client.completions.create(
        model="a9", prompt=sources()[0], max_tokens=LONGEST, echo=True
    ).choices[0]
    row = adaptation("a9", 0).row_template.encode(
        laws.tokenizer(), Example(sources()[0], ()), None, world.CAPACITY
    )
    own = [token.id for token in alone("a9", 0, sources()[0]).tokens]
    assert text.text == laws.tokenizer().decode([*row.ids, *own])
    assert text.logprobs is None


@pytest.mark.parametrize("name", ["a9", "a15", "a16", "a18"])
def test_parts_of_one_token_disturb_nobody(client: openai.OpenAI, name: str) -> None:
    """A prompt of one token, one that a step cuts into one, and, at the cue, one of one token
    before it; others decode in the same steps.
    """
    cue = laws.tokenizer()("\nsay it:", add_special_tokens=False)["input_ids"]
    plain = alone("a5", 0, sources()[0])
    with ThreadPoolExecutor(5) as pool:
        ask = client.completions.create
        others = [
            pool.submit(ask, model="a5", prompt=sources()[0], max_tokens=LONGEST) for _ in range(2)
        ]
        for ids in ([5], TOKENS[:17], [5, *cue], [*TOKENS[:17], *cue]):
            if name != "a9" and len(ids) <= 17 and ids[-1] != cue[-1]:
                continue  # they begin at words that have to be there
            (choice,) = ask(model=name, prompt=ids, max_tokens=1, logprobs=0, echo=True).choices
            assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
            told = choice.logprobs.token_logprobs
            assert len(told) == len(ids) + 1 and None not in told[1:]
            if name == "a9":
                assert told[1 : len(ids)] == pytest.approx(expected(name, ids), abs=1e-4)
        for one in others:
            assert one.result().choices[0].text == plain.text


def test_of_a_mixture_it_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no log-probabilities of one prompt"):
        client.completions.create(
            model="m0", prompt=sources()[0], max_tokens=1, echo=True, logprobs=0
        )


def test_own_stops_and_penalties(client: openai.OpenAI) -> None:
    asked: Any = {"model": "a9", "prompt": sources()[0], "max_tokens": 8, "logprobs": 0}
    plain = alone("a9", 0, sources()[0]).tokens
    stop = next(token.id for token in plain if token.id != plain[0].id)
    first = next(i for i, token in enumerate(plain) if token.id == stop)
    (cut,) = client.completions.create(**asked, extra_body={"stop_token_ids": [stop]}).choices
    assert cut.finish_reason == "stop" and cut.logprobs is not None
    assert len(cut.logprobs.tokens or []) == first
    for penalty in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
        (other,) = client.completions.create(**asked, extra_body={penalty: 2.0}).choices
        given = [Request(adaptation("a9", 0), sources()[0], 8)]
        (own,) = generate(laws.model("gpt2"), given, Decoding(**{penalty: 2.0}))
        assert other.text == own.text
    sampled = {"temperature": 1.5, "seed": 3, "extra_body": {"min_p": 1.0}}
    (best,) = client.completions.create(**asked, **sampled).choices
    assert best.text == alone("a9", 0, sources()[0]).text, "nothing but the best is left"


def test_a_stop_ends_an_echoed_text_too(client: openai.OpenAI) -> None:
    asked: Any = {"model": "a9", "prompt": sources()[0], "max_tokens": 8, "echo": True}
    whole = client.completions.create(**asked).choices[0].text
    reply = alone("a9", 0, sources()[0]).text
    stop = reply[len(reply) // 2 :][:2]
    (cut,) = client.completions.create(**asked, stop=stop).choices
    assert whole.startswith(cut.text) and stop not in cut.text[whole.rindex(reply) :]
    one = client.completions.create(**(asked | {"max_tokens": 0}))
    assert one.usage is not None and one.usage.completion_tokens == 0
