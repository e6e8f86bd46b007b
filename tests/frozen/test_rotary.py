"""Keys of position 0, turned: what the family's own attention would make of them there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from peftlab.edits import Edits, KeysValues
from peftlab.errors import InputError
from peftlab.frozen import attention
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from tests.models import tiny

FAMILIES = (
    "gpt2", "opt", "llama", "qwen3", "gemma3_text", "mistral", "phi", "gpt_neox", "cohere",
    "smollm3", "cohere2",
)  # fmt: skip
_LAYERS = {"smollm3": 4, "cohere2": 4}  # whose every fourth block turns nothing


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
    layers = {"num_hidden_layers": _LAYERS[family]} if family in _LAYERS else {}
    lm = FrozenLM(tiny(family, **layers))
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


def test_a_family_that_turns_keys_in_its_own_way_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = FrozenLM(tiny("llama"))
    monkeypatch.setattr(lm.rotary, "_angles", lambda *_: None)
    for _ in range(2):  # nothing of the first refusal lets the second time pass
        with pytest.raises(InputError, match=r"in a way of its own.*begin=row"):
            lm.rotary.turned(0, torch.randn(1, 2, lm.shape.head_dim), 3)


def test_a_family_without_the_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = FrozenLM(tiny("llama"))
    monkeypatch.setattr("peftlab.frozen.rotary.rotary_function", lambda _: None)
    with pytest.raises(InputError, match=r"in a way of its own.*begin=row"):
        lm.rotary.turned(0, torch.randn(1, 2, lm.shape.head_dim), 3)


@torch.no_grad()
def test_rows_that_share_a_start_have_their_prefix_where_rows_alone_have_it() -> None:
    lm = FrozenLM(tiny("llama"))
    shape, rng = lm.shape, torch.Generator().manual_seed(2)
    kv = [torch.randn(2, shape.kv_heads, 3, shape.head_dim, generator=rng) for _ in range(3)]
    edits = Edits(attention={b: (KeysValues(*own),) for b, own in enumerate(kv)}, begin="cue")
    start = list(range(5, 25))
    rows = [Row([*start, 30 + i, 40 + i], 0, -2) for i in range(4)]
    together = pack(rows, [edits])
    assert any(segment.shared for segment in together.segments)
    alone = [lm(pack([row], [edits])) for row in rows]
    for got, expected in zip(together.split_kept(lm(together)), alone, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_tables_are_no_longer_than_the_rope_allows() -> None:
    rope = {
        "rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    lm = FrozenLM(tiny("llama", rope_parameters=rope))
    keys = torch.randn(lm.shape.kv_heads, 2, lm.shape.head_dim)
    assert lm.rotary.turned(0, keys, 5).shape == keys.shape
