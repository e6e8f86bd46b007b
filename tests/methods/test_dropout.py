"""A method's own dropout: another mask at every step and site, the same one when repeated."""

from __future__ import annotations

import torch

from peftlab.edits import Dropout


def _kept(seed: int, site: str) -> torch.Tensor:
    return Dropout(0.5, seed)(torch.ones(4, 64), site) > 0


def test_masks_differ_by_seed_and_by_site_and_repeat() -> None:
    """Seeds that differ in any bit: a generator on CPU looks at the lower 32 only."""
    masks = [_kept(seed, "a") for seed in (0, 1, 2, 65_537, 1 << 32, 1_000_003 << 32)]
    masks += [_kept(0, "b"), _kept(0, "c")]
    for i, mask in enumerate(masks):
        assert not any(torch.equal(mask, other) for other in masks[:i])
    assert torch.equal(_kept(65_537, "a"), _kept(65_537, "a"))


def test_it_keeps_the_mean_and_drops_the_share_asked_for() -> None:
    out = Dropout(0.25, 3)(torch.ones(200, 200), "site")
    assert abs(float(out.mean()) - 1) < 0.02
    assert abs(float((out == 0).float().mean()) - 0.25) < 0.01
