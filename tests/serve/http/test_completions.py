"""`/v1/completions` by the official client: the replies are the engine's, whole or in pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
import torch

from peftlab.serve import Reply
from tests.laws import world as laws
from tests.models import tiny
from tests.serve.http.server import Server, counts
from tests.serve.world import LONGEST, NAMES, alone, sources

REASONS = {"end": "stop", "length": "length"}


def is_alone(name: str, source: str, choice: Any) -> None:
    """A choice is the adapter's own reply, or leaves it where two tokens are nearly as likely."""
    expected = alone(name, 0, source)
    if choice.text != expected.text:
        assert _has_near_tie(expected), f"{name}: {choice.text!r} instead of {expected.text!r}"
        return
    assert choice.finish_reason == REASONS[expected.finished]


def _has_near_tie(reply: Reply) -> bool:
    return any(token.alternatives[0][1] - token.alternatives[1][1] < 1e-4 for token in reply.tokens)


def test_every_adapter_answers_as_it_does_alone(client: openai.OpenAI) -> None:
    for name in NAMES:
        completion = client.completions.create(model=name, prompt=sources()[0], max_tokens=LONGEST)
        is_alone(name, sources()[0], completion.choices[0])
        expected = alone(name, 0, sources()[0])
        assert completion.model == name and completion.object == "text_completion"
        assert completion.usage is not None
        assert completion.usage.prompt_tokens == expected.prompt_tokens
        assert completion.usage.total_tokens - completion.usage.prompt_tokens <= LONGEST


def test_a_stream_is_the_whole_reply_in_pieces(client: openai.OpenAI) -> None:
    asked: Any = {"model": "a9", "prompt": sources()[:3], "max_tokens": 8, "logprobs": 1}
    whole = client.completions.create(**asked)
    options: Any = {"include_usage": True}
    chunks = list(client.completions.create(**asked, stream=True, stream_options=options))
    assert counts(chunks[-1].usage) == counts(whole.usage) and chunks[-1].choices == []
    assert all(chunk.usage is None and chunk.id == chunks[0].id for chunk in chunks[:-1])
    for choice in whole.choices:
        own = [it for chunk in chunks for it in chunk.choices if it.index == choice.index]
        assert "".join(it.text for it in own) == choice.text
        assert len(own) > 2
        assert [it.finish_reason for it in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].finish_reason == choice.finish_reason
        told = [it.logprobs for it in own if it.logprobs is not None]
        assert choice.logprobs is not None
        assert [t for it in told for t in it.tokens or []] == choice.logprobs.tokens
        assert [t for it in told for t in it.text_offset or []] == choice.logprobs.text_offset


def test_without_the_option_a_stream_tells_no_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(model="a9", prompt=sources()[0], max_tokens=2, stream=True)
    )
    assert chunks[-1].choices and all(chunk.usage is None for chunk in chunks)


def test_n_and_seed(client: openai.OpenAI) -> None:
    asked: Any = {"model": "a9", "prompt": sources()[:2], "max_tokens": 8, "temperature": 1.5}
    choices = client.completions.create(**asked, n=3, seed=5).choices
    assert [it.index for it in choices] == list(range(6))
    texts = [it.text for it in choices]
    assert len(set(texts)) > 2
    assert [it.text for it in client.completions.create(**asked, n=3, seed=5).choices] == texts
    second = client.completions.create(**asked, seed=6).choices
    assert [it.text for it in second] == [texts[1], texts[4]], "reply i of n has seed + i"


def test_logprobs_are_the_models_and_offsets_those_of_the_text(client: openai.OpenAI) -> None:
    for name in ("a0", "a3", "a9"):
        completion = client.completions.create(
            model=name, prompt=sources()[1], max_tokens=LONGEST, logprobs=2
        )
        choice, expected = completion.choices[0], alone(name, 0, sources()[1])
        told = choice.logprobs
        assert told is not None and told.token_logprobs is not None and told.top_logprobs
        assert told.tokens is not None and told.text_offset is not None
        assert told.token_logprobs == pytest.approx(
            [it.logprob for it in expected.tokens], abs=1e-4
        )
        tokenizer = laws.tokenizer()
        for token, text, offset, top in zip(
            expected.tokens, told.tokens, told.text_offset, told.top_logprobs, strict=True
        ):
            assert text == tokenizer.decode([token.id])
            assert choice.text[offset:].startswith(text.strip())
            assert set(top) == {tokenizer.decode([it]) for it, _ in token.alternatives}


def test_stop_strings(client: openai.OpenAI) -> None:
    whole = alone("a9", 0, sources()[0]).text
    stop = whole[len(whole) // 2 :][:2]
    for given in (stop, [stop, "never"]):
        (choice,) = client.completions.create(
            model="a9", prompt=sources()[0], max_tokens=LONGEST, stop=given
        ).choices
        assert choice.finish_reason == "stop"
        assert choice.text == whole[: whole.index(stop)].strip()


def test_tokens_stand_as_they_are(client: openai.OpenAI) -> None:
    """Against a plain transformers model, greedily."""
    plain, ids = tiny("gpt2").eval(), [5, 17, 90, 33, 8]
    row = torch.tensor([ids])
    for _ in range(6):
        with torch.no_grad():
            row = torch.cat([row, plain(row).logits[:, -1:].argmax(-1)], 1)
    expected = laws.tokenizer().decode(row[0, len(ids) :], skip_special_tokens=True).strip()
    for prompt, count in ((ids, 1), ([ids, ids], 2)):
        completion = client.completions.create(model="gpt2", prompt=prompt, max_tokens=6)
        assert [it.text for it in completion.choices] == [expected] * count
        assert completion.usage is not None and completion.usage.prompt_tokens == 5 * count


def test_tokens_come_after_an_adapters_pseudo_tokens_without_its_template(
    client: openai.OpenAI,
) -> None:
    """The template rendered by hand, as tokens, gives what its source gives as text."""
    ids = laws.tokenizer()(sources()[0] + "\nsay it:", add_special_tokens=False)["input_ids"]
    for name in ("a2", "a4", "a9", "a15", "a16", "a17"):  # the last ones begin at the cue
        completion = client.completions.create(model=name, prompt=ids, max_tokens=LONGEST)
        is_alone(name, sources()[0], completion.choices[0])
    with pytest.raises(openai.BadRequestError, match=r"begins at '\\nsay it:', which the prompt's"):
        client.completions.create(model="a15", prompt=[5, 17, 90], max_tokens=4)
    with pytest.raises(openai.BadRequestError, match="pseudo tokens inside its template"):
        client.completions.create(model="a3", prompt=ids, max_tokens=4)
    with pytest.raises(openai.BadRequestError, match=r"token 1 of the prompt is 120; 0 to 119"):
        client.completions.create(model="a9", prompt=[1, 120], max_tokens=4)


def test_greedy_unless_chance_is_asked_for(client: openai.OpenAI) -> None:
    asked: Any = {"model": "gpt2", "prompt": sources()[0], "max_tokens": 8}
    greedy = {client.completions.create(**asked).choices[0].text for _ in range(3)}
    assert len(greedy) == 1
    drawn = {
        client.completions.create(**asked, **extra, seed=seed).choices[0].text
        for seed in range(3)
        for extra in ({"top_p": 0.99}, {"extra_body": {"top_k": 50}}, {"temperature": 1})
    }
    assert len(drawn) > 3


def test_own_fields_reach_the_engine(client: openai.OpenAI) -> None:
    body = {"truncate": True, "min_tokens": 6, "no_repeat_ngram": 1}
    (choice,) = client.completions.create(
        model="a9", prompt="cat " * 200, max_tokens=6, logprobs=0, extra_body=body
    ).choices
    assert choice.logprobs is not None and choice.logprobs.tokens is not None
    assert len(choice.logprobs.tokens) == len(set(choice.logprobs.tokens)) == 6


def test_what_asks_for_nothing_is_taken(client: openai.OpenAI) -> None:
    client.completions.create(
        model="a9", prompt="cat", max_tokens=1, echo=False, best_of=1, frequency_penalty=0,
        presence_penalty=0, logit_bias={}, user="me", suffix=None,
    )  # fmt: skip


def test_the_models_are_the_base_and_the_adapters(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [it.id for it in models] == ["gpt2", *sorted(NAMES)]
    assert client.models.retrieve("a9").id == "a9"
    assert models[1].model_dump()["parent"] == "gpt2"
    with pytest.raises(openai.NotFoundError, match='Did you mean "a9'):
        client.models.retrieve("a99")


def test_many_clients_at_once_get_each_its_own(server: Server) -> None:
    async def one(client: openai.AsyncOpenAI, name: str, source: str, stream: bool) -> None:
        asked: Any = {"model": name, "prompt": source, "max_tokens": LONGEST}
        if not stream:
            is_alone(name, source, (await client.completions.create(**asked)).choices[0])
            return
        chunks = [c async for c in await client.completions.create(**asked, stream=True)]
        last = chunks[-1].choices[0]
        last.text = "".join(chunk.choices[0].text for chunk in chunks)
        is_alone(name, source, last)

    async def all_at_once() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
            asked = [(n, s, i) for i, s in enumerate(sources()[:4]) for n in NAMES]
            await asyncio.gather(*(one(client, n, s, i % 2 == 0) for n, s, i in asked))

    asyncio.run(all_at_once())
    assert server.engine.stats().running == server.engine.stats().waiting == 0
