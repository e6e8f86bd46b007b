"""Adapters of every kind on a tiny model, and what each answers when it is served alone."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from peftlab.conversion import Part, mixture
from peftlab.methods.adaptation import Adaptation
from peftlab.serve import Engine, Library, Limits, Reply, ServeRequest
from tests.laws import world
from tests.laws.cases import made

CASES = (
    "hard_prompt:instruction=say it in one word,shots=1,select=similar,pool=6",
    "hard_prompt:instruction=task,shots=1",
    "prompt_tuning:length=5,initialisation=vocabulary",
    "p_tuning:length=6,pattern={p:2}{source} in short{p:3} say{p:1}{target}",
    "prefix_tuning:length=5,reparametrisation=mlp,hidden=16",
    "llama_adapter:length=3,layers=3",
    "bottleneck:kind=lin,bottleneck=4",
    "bottleneck:kind=parallel,bottleneck=4",
    "lora:rank=4,targets=q+k+up,dora=true",
    "lora:rank=4,targets=all-linear,alpha=8",
    "ia3",
    "bitfit",
    "last_k:k=2,final_norm=true",
    "full",
    "prefix_tuning:length=3+llama_adapter:length=2+bitfit",
    "lora:rank=4,begin=cue",
    "prefix_tuning:length=3,begin=cue",
    "prompt_tuning:length=2,begin=cue",
    "full:begin=cue",
)
MIXTURES = {"m0": (("a2", 0.6), ("a9", 0.7)), "m1": (("a15", 1.4), ("base", -0.4))}
NAMES = (*(f"a{i}" for i in range(len(CASES))), *MIXTURES)
CAPACITY = 90
LONGEST = 8
NEAR_TIE = 1e-4


@cache
def adaptation(name: str, variant: int, family: str = "gpt2") -> Adaptation:
    """An adapter in one of two versions, whose answers differ."""
    if name in MIXTURES:
        parts = [
            Part(part, None if part == "base" else adaptation(part, variant, family), weight)
            for part, weight in MIXTURES[name]
        ]
        return mixture(world.model(family), parts)
    it = made(CASES[NAMES.index(name)], family)
    return it.adaptation(it.moved if variant == 0 else it.first)


def sources() -> list[str]:
    """Six texts."""
    return [example.source for example in world.task().test]


def library(family: str = "gpt2", names: tuple[str, ...] = NAMES) -> Library:
    """All adapters, or some, in their first version."""
    lib = Library(world.model(family))
    for name in names:
        lib.load(name, adaptation(name, 0, family))
    while lib.load_one():
        pass
    return lib


def run(engine: Engine) -> None:
    """Step until nothing is left to do."""
    while engine.step():
        pass


@lru_cache(maxsize=4096)
def alone(name: str, variant: int, source: str, family: str = "gpt2") -> Reply:
    """The greedy reply of LONGEST tokens with nobody else in the batch, the prompt in one piece."""
    reply = _solo(name, variant, family)
    return reply(source)


@cache
def _solo(name: str, variant: int, family: str) -> Any:
    model = world.model(family)
    lib = Library(model)
    lib.load("it", adaptation(name, variant, family))
    limits = Limits(slots=2, capacity=CAPACITY, prefill_tokens=CAPACITY, prompt_cache_bytes=0)
    engine = Engine(model, lib, limits)

    def reply(source: str) -> Reply:
        lib.load_one()
        ticket = engine.submit(ServeRequest("it", source, LONGEST, logprobs=2))
        run(engine)
        return ticket.result(0)

    return reply


def compare(reply: Reply, expected: Reply) -> bool:
    """Whether a reply of at most LONGEST tokens is the beginning of the one given alone.

    Returns False for one that leaves it at a step whose two best scores are nearly the same.
    """
    for ours, theirs in zip(reply.tokens, expected.tokens, strict=False):
        if ours.id != theirs.id:
            (_, best), (_, second) = theirs.alternatives
            assert best - second < NEAR_TIE, f"{ours.id} instead of {theirs.id}"
            return False
    assert len(reply.tokens) <= len(expected.tokens)
    if reply.finished == "end":
        assert expected.finished == "end" and len(reply.tokens) == len(expected.tokens)
    return True
