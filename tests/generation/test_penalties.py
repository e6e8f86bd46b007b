"""Penalties and min-p against transformers' processors and vLLM's formulas."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
)

from peftlab.generation.choose import Chooser, Written
from peftlab.tasks import Decoding

PROMPTS = [[3, 4, -1, 4, 9], [1]]
MADE = [[5, 4, 5, 5, 7], []]


def rows() -> list[Written]:
    return [Written(made, (0,), 0, prompt) for made, prompt in zip(MADE, PROMPTS, strict=True)]


def logits() -> torch.Tensor:
    return torch.randn(2, 12, generator=torch.Generator().manual_seed(3))


def test_repetition_is_transformers() -> None:
    """Of the prompt too; pseudo tokens are no words."""
    found = Chooser(Decoding(repetition_penalty=1.7)).restrict(logits(), rows())
    processor = RepetitionPenaltyLogitsProcessor(1.7)
    for i, (prompt, made) in enumerate(zip(PROMPTS, MADE, strict=True)):
        seen = torch.tensor([[one for one in (*prompt, *made) if one >= 0]])
        expected = processor(seen, logits()[i : i + 1])[0]
        torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize(("presence", "frequency"), [(0.7, 0.0), (0.0, 0.3), (-0.5, 1.1)])
def test_presence_and_frequency_are_of_the_reply(presence: float, frequency: float) -> None:
    """logits −= frequency · count + presence · (count > 0)."""
    decoding = Decoding(presence_penalty=presence, frequency_penalty=frequency)
    found = Chooser(decoding).restrict(logits(), rows())
    for i, made in enumerate(MADE):
        counts = torch.tensor([made.count(token) for token in range(12)])
        expected = logits()[i] - frequency * counts - presence * (counts > 0)
        torch.testing.assert_close(found[i], expected)


def test_min_p_leaves_what_transformers_leaves() -> None:
    decoding = Decoding(sample=True, temperature=1.3, min_p=0.4)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(1.3), MinPLogitsWarper(0.4)])
    possible = warpers(torch.empty(2, 0, dtype=torch.long), logits()).isfinite()
    chooser, seen = Chooser(decoding), [set[int](), set[int]()]
    for seed in range(200):
        generators = [torch.Generator().manual_seed(seed + i) for i in (0, 1000)]
        for i, token in enumerate(chooser.next(logits(), generators)):
            seen[i].add(token)
    for i in (0, 1):
        assert seen[i] == set(possible[i].nonzero().flatten().tolist())
