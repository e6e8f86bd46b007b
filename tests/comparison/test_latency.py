"""Merging is exact, and is refused where it cannot be."""

from __future__ import annotations

import pytest
import torch

from peftlab.comparison.latency import merged
from peftlab.edits import Edits, LinearEdit
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from tests.models import frozen


def logits(model: FrozenLM, edits: Edits) -> torch.Tensor:
    with torch.no_grad():
        return model(pack([Row([5, 6, 7, 8], keep=0)], [edits]))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_merged_gives_the_same_logits(family: str) -> None:
    model = frozen(family)
    rng = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return 0.3 * torch.randn(*size, generator=rng)

    linear = {
        x.path: LinearEdit(
            down=draw(2, x.in_features),
            up=draw(x.out_features, 2),
            in_scale=1 + draw(x.in_features),
            out_scale=1 + draw(x.out_features),
            bias=draw(x.out_features) if x.bias else None,
        )
        for x in model.shape.linears
    }
    edits = Edits(linear=linear)
    whole = merged(model, edits)
    assert whole is not None and not whole.linear
    assert (logits(model, edits) - logits(model, Edits())).abs().max() > 0.1
    torch.testing.assert_close(logits(model, whole), logits(model, edits), atol=1e-4, rtol=1e-4)


def test_what_is_not_linear_is_not_merged() -> None:
    model = frozen("llama")
    assert merged(model, Edits()) is None
    edit = {model.shape.linears[0].path: LinearEdit(bias=torch.ones(32))}
    assert merged(model, Edits(linear=edit)) is None, "llama has no bias that could take it"
    assert merged(model, Edits(linear=edit, embeddings=torch.zeros(1, 32))) is None
