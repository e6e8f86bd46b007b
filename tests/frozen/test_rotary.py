"""Keys of position 0, turned: what the family's own attention would make of them there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from peftlab.edits import Edits
from peftlab.frozen import attention
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from tests.models import tiny

FAMILIES = (
    "gpt2", "opt", "llama", "qwen3", "gemma3_text", "mistral", "phi", "gpt_neox", "cohere",
)  # fmt: skip


def keys_at(lm: FrozenLM, block: int, states: torch.Tensor, start: int) -> torch.Tensor:
    """What a block's own attention makes of inputs [P, D] at the positions from `start` on."""
    batch = pack([Row([0] * len(states))], [Edits()])
    batch = replace(batch, positions=batch.positions + start)
    with pytest.raises(attention.Captured) as captured:
        lm(batch, ForwardOptions(project=(block, states.unsqueeze(0))))
    return captured.value.keys


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_turned_keys_are_those_of_tokens_there(family: str) -> None:
    lm = FrozenLM(tiny(family))
    states = torch.randn(4, lm.shape.hidden, generator=torch.Generator().manual_seed(0))
    for block in (0, lm.shape.layers - 1):
        keys, _ = lm.project_keys_values(block, states)
        for start in (0, 1, 37):
            expected = keys_at(lm, block, states, start)
            turned = lm.rotary.turned(block, keys, start)
            torch.testing.assert_close(turned, expected, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(lm.rotary.back(block, turned, start), keys)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
@torch.no_grad()
def test_a_score_with_a_prefix_hangs_on_the_distance_alone(family: str) -> None:
    lm = FrozenLM(tiny(family))
    rng = torch.Generator().manual_seed(1)
    query, prefix = (torch.randn(1, n, lm.shape.head_dim, generator=rng) for n in (1, 3))
    for block in (0, lm.shape.layers - 1):
        scores = [
            lm.rotary.turned(block, query, source + 3)
            @ lm.rotary.turned(block, prefix, source).transpose(-1, -2)
            for source in (0, 5, 40)
        ]
        torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(scores[2], scores[0], rtol=1e-4, atol=1e-5)
