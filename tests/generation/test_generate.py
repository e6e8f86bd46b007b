"""Generation equals each row alone, and transformers' `generate` on the plain model."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from peftlab.errors import InputError
from peftlab.frozen.model import FrozenLM
from peftlab.generation import Reply, Request, generate
from peftlab.methods import Method, parse
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.tasks import Decoding
from tests.laws import world
from tests.models import tiny

_METHODS = (
    "hard_prompt,hard_prompt:instruction=task,hard_prompt:shots=2,prompt_tuning:length=5,lora:rank=4,"
    "prefix_tuning:length=4,p_tuning:length=4,llama_adapter,bottleneck:bottleneck=4,ia3,bitfit,last_k,"
    "prefix_tuning:length=3+bottleneck:kind=parallel,bottleneck=4"
)


def _adaptation(family: str, method: Method, seed: int = 0) -> Adaptation:
    """Untrained but far from the base: every tensor moved."""
    model, task = world.model(family), world.task()
    rng = torch.Generator().manual_seed(seed)
    state = method.materialise(method.init(model, task, rng), model)
    moved = {n: t + 0.3 * torch.randn(t.shape, generator=rng) for n, t in state.tensors.items()}
    base = {"name": model.name, "fingerprint": model.fingerprint}
    return Adaptation(method, replace(state, tensors=moved), task.template, base)


def _requests(family: str) -> list[Request]:
    adaptations = [_adaptation(family, method) for method in parse(_METHODS)]
    sources = [example.source for example in world.task().test[:3]]
    lengths = (3, 9, 6)
    return [
        Request(adaptation, source, lengths[(i + j) % 3])
        for i, source in enumerate(sources)
        for j, adaptation in enumerate(adaptations)
    ]


def _plain(family: str, ids: tuple[int, ...], **options: object) -> list[int]:
    """What transformers generates after these ids, without the end."""
    tokens = tiny(family).eval().generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **options
    )[0, len(ids) :].tolist()  # fmt: skip
    return tokens[: tokens.index(2)] if 2 in tokens else tokens


@pytest.mark.parametrize("family", world.FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_a_mixed_batch_answers_as_each_request_alone(family: str, batch_size: int) -> None:
    requests = _requests(family)
    together = generate(world.model(family), requests, batch_size=batch_size)
    alone = [generate(world.model(family), [request])[0] for request in requests]
    assert [r.tokens for r in together] == [r.tokens for r in alone]
    assert all(len(r.tokens) <= q.max_new_tokens for r, q in zip(together, requests, strict=True))


@pytest.mark.parametrize("family", world.FAMILIES)
@pytest.mark.parametrize(
    ("decoding", "options"),
    [
        (Decoding(), {}),
        (Decoding(min_new_tokens=5), {"min_new_tokens": 5}),
        (Decoding(beams=3), {"num_beams": 3}),
        (Decoding(beams=3, min_new_tokens=6), {"num_beams": 3, "min_new_tokens": 6}),
        (Decoding(beams=4, length_penalty=0.6), {"num_beams": 4, "length_penalty": 0.6}),
        (Decoding(beams=2, length_penalty=-1.0), {"num_beams": 2, "length_penalty": -1.0}),
    ],
)
def test_greedy_and_beam_search_are_those_of_transformers(
    family: str, decoding: Decoding, options: dict[str, object]
) -> None:
    model, task = world.model(family), world.task()
    adaptation = _adaptation(family, parse("hard_prompt")[0])
    requests = [Request(adaptation, example, 12) for example in task.test]
    replies = generate(model, requests, decoding, batch_size=8)
    for example, reply in zip(task.test, replies, strict=True):
        ids = task.template.encode(model.tokenizer, example, None, 80).ids
        expected = _plain(family, ids, max_new_tokens=12, do_sample=False, **options)
        assert list(reply.tokens) == expected


def test_sampling_depends_on_seed_and_place_but_not_on_the_batch() -> None:
    requests, decoding = (
        _requests("gpt2"),
        Decoding(sample=True, temperature=0.9, top_p=0.95, top_k=40),
    )
    model = world.model("gpt2")
    first = generate(model, requests, decoding, batch_size=3, seed=1)
    assert generate(model, requests, decoding, batch_size=64, seed=1) == first
    assert generate(model, requests, decoding, batch_size=64, seed=2) != first


def test_no_n_gram_is_repeated_when_forbidden() -> None:
    model, decoding = world.model("gpt2"), Decoding(no_repeat_ngram=2, min_new_tokens=24)
    adaptation = _adaptation("gpt2", parse("hard_prompt")[0])
    for reply in generate(model, [Request(adaptation, e, 24) for e in world.task().test], decoding):
        pairs = list(zip(reply.tokens, reply.tokens[1:], strict=False))
        assert len(set(pairs)) == len(pairs) == 23


def test_replies_say_why_they_ended_and_progress_reaches_the_end() -> None:
    model, told = world.model("gpt2"), list[int]()
    adaptation = _adaptation("gpt2", parse("hard_prompt")[0])
    requests = [Request(adaptation, e, n) for n, e in enumerate(world.task().test, start=1)]
    replies = generate(model, requests, batch_size=2, done=told.append)
    assert told == sorted(told) and told[-1] == len(requests)
    for request, reply in zip(requests, replies, strict=True):
        full = len(reply.tokens) == request.max_new_tokens
        assert reply.finished == ("length" if full else "end")
    assert generate(model, []) == []


def test_an_overlong_source_is_cut_and_an_impossible_request_is_refused() -> None:
    model = world.model("gpt2")
    adaptation = _adaptation("gpt2", parse("prompt_tuning:length=5")[0])
    reply: Reply = generate(model, [Request(adaptation, "red cat " * 80, 8)])[0]
    assert reply.dropped > 0 and reply.prompt_tokens + 8 <= model.shape.context
    with pytest.raises(InputError):
        generate(model, [Request(adaptation, "red cat", 95)])


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(beams=3)])
def test_line_breaks_can_be_forbidden(decoding: Decoding) -> None:
    """As with transformers' `bad_words_ids`, on a base whose head loves them."""
    plain, tokenizer = tiny("gpt2").eval(), world.tokenizer()
    (newline,) = tokenizer("\n")["input_ids"]
    with torch.no_grad():
        plain.lm_head.weight[newline] = plain.lm_head.weight.sum(0)
        plain.lm_head.weight[newline] *= 3
    model, task = FrozenLM(deepcopy(plain), tokenizer, "breaks"), world.task()
    method = parse("hard_prompt")[0]
    state = method.init(model, task, torch.Generator())
    adaptation = Adaptation(method, state, task.template, base_of(model))
    requests = [Request(adaptation, example, 8) for example in task.test]
    freely = generate(model, requests, decoding)
    assert any(newline in reply.tokens for reply in freely)
    without = generate(model, requests, replace(decoding, no_newlines=True))
    assert not any(newline in reply.tokens for reply in without)
    limit = model.shape.context - 8
    for example, reply in zip(task.test, without, strict=True):
        ids = task.template.encode(tokenizer, example, None, limit).ids
        expected = plain.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=8,
            num_beams=decoding.beams,
            bad_words_ids=[[newline]],
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=0,
        )[0, len(ids) :].tolist()
        end = tokenizer.eos_token_id
        expected = expected[: expected.index(end)] if end in expected else expected
        assert list(reply.tokens) == expected
