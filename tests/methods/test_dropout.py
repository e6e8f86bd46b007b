"""A method's own dropout: another mask for every seed, site and token, the same when repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from peftlab.edits import Dropout
from peftlab.methods import parse_one
from peftlab.training import TrainConfig, train
from tests.laws.world import model, task


def _kept(seed: int, site: str, tokens: torch.Tensor | None = None) -> torch.Tensor:
    tokens = torch.arange(4) if tokens is None else tokens
    return Dropout(0.5, seed)(torch.ones(1, len(tokens), 64), site, tokens)[0] > 0


def test_masks_differ_by_seed_and_by_site_and_repeat() -> None:
    """Seeds and tokens that differ in any bit."""
    masks = [_kept(seed, "a") for seed in (0, 1, 2, 65_537, 1 << 32, 1_000_003 << 32)]
    masks += [
        _kept(0, "b"),
        _kept(0, "c"),
        *(_kept(0, "a", torch.arange(4) + (n << 32)) for n in (1, 2)),
    ]
    for i, mask in enumerate(masks):
        assert not any(torch.equal(mask, other) for other in masks[:i])
    assert torch.equal(_kept(65_537, "a"), _kept(65_537, "a"))


def test_a_token_keeps_its_mask_wherever_it_stands() -> None:
    tokens = torch.tensor([7, (3 << 32) + 7, 0, (1 << 32) + 95])
    shuffled = torch.tensor([2, 0, 3, 1])
    assert torch.equal(_kept(5, "a", tokens)[shuffled], _kept(5, "a", tokens[shuffled]))
    rows = _kept(5, "a", tokens)
    assert len({tuple(row.tolist()) for row in rows}) == 4


def test_it_keeps_the_mean_and_drops_the_share_asked_for() -> None:
    out = Dropout(0.25, 3)(torch.ones(200, 200), "site", torch.arange(200))
    assert abs(float(out.mean()) - 1) < 0.02
    assert abs(float((out == 0).float().mean()) - 0.25) < 0.01


def test_masks_look_like_chance() -> None:
    """Shares by token, by feature, and of neighbours dropped together, within 5 deviations."""
    tokens = torch.cat([(row << 32) + torch.arange(50) for row in range(1, 41)])
    dropped = (Dropout(0.3, 11)(torch.ones(2000, 512), "s", tokens) == 0).double()
    for share, count in ((dropped.mean(0), 2000), (dropped.mean(1), 512)):
        assert float((share - 0.3).abs().max()) < 5 * (0.3 * 0.7 / count) ** 0.5
        assert 0.8 < float(share.var() / (0.3 * 0.7 / count)) < 1.2
    for other in (dropped.roll(1, 0), dropped.roll(1, 1), dropped.roll(50, 0)):
        assert (
            abs(float((dropped * other).mean()) - 0.09) < 5 * (0.09 * 0.91 / dropped.numel()) ** 0.5
        )


@pytest.mark.parametrize("change", [
    {"batch_size": 2, "accumulation": 3}, {"fast": False}, {"share": False}, {"recompute": True},
])  # fmt: skip
def test_a_step_does_not_depend_on_how_it_is_computed(
    change: dict[str, int],
) -> None:
    """Cut into micro-batches, without the shared start, with all tokens in the last block."""
    config = TrainConfig(steps=3, batch_size=6, validation_limit=2)
    method = parse_one("lora:rank=4,targets=all-linear,dropout=0.3")
    common = replace(
        task(), template=replace(task().template, text="all of it: {source} and {target}")
    )
    expected = train(model("llama"), method, common, config)
    got = train(model("llama"), method, common, replace(config, **change))
    assert got.losses == pytest.approx(expected.losses, abs=5e-6)
    without = train(model("llama"), parse_one("lora:rank=4,targets=all-linear"), common, config)
    assert without.losses != pytest.approx(expected.losses, abs=1e-4)
