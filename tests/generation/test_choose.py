"""The place of a row's largest score, however wide the row is."""

from __future__ import annotations

import pytest
import torch

from peftlab.generation.choose import greedy


@pytest.mark.parametrize("size", [1, 7, 256, 511, 512, 513, 1000, 50257])
@pytest.mark.parametrize("levels", [2, 1_000_000])
def test_greedy_is_argmax(size: int, levels: int) -> None:
    """Equal scores, where there are few levels: the first of them."""
    rng = torch.Generator().manual_seed(size)
    logits = torch.randint(levels, (9, size), generator=rng).float()
    assert greedy(logits) == logits.argmax(-1).tolist()
    best = torch.randint(size, (9,), generator=rng)
    logits[torch.arange(9), best] = levels + 1
    assert greedy(logits) == best.tolist()
    assert greedy(logits[:, : size // 2 + 1]) == logits[:, : size // 2 + 1].argmax(-1).tolist()


def test_greedy_points_to_what_is_no_number() -> None:
    """So that the engine sees it and says so."""
    logits = torch.zeros(3, 1000)
    logits[0, 999] = logits[1, 3] = logits[2, 300] = float("nan")
    logits[:, 500] = 1.0
    assert greedy(logits) == [999, 3, 300]


def test_greedy_among_the_forbidden() -> None:
    logits = torch.full((2, 1000), float("-inf"))
    logits[0, 998] = 0.0
    assert greedy(logits) == [998, 0]
