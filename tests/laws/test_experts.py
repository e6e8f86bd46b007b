"""The laws on mixtures of experts: every method whose sites these have; the others say why not.

Which experts a token goes to depends on its own state alone, so a row is not changed by others.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

from peftlab.errors import InputError
from peftlab.frozen.families import WITH_EXPERTS
from peftlab.frozen.families import tiny as tiny_family
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.packing import Row, pack
from peftlab.laws import Trial, rows
from peftlab.laws.law import Tensors, require_close_gradients
from peftlab.laws.trial import gradients, leaves
from tests.laws.cases import TRAINED, WHOLE_ROWS, made, method
from tests.laws.world import model
from tests.models import frozen

FAMILY = "qwen3_moe"
# Scaling or changing what the feed-forward's own projections do: here those are the experts'.
REFUSED = {"ia3", "lora:rank=4,targets=q+v+o+down,layers=1,initialisation=gaussian,rslora=true",
           "lora:rank=4,targets=q+k+up,dora=true"}  # fmt: skip
FITTING = tuple(case for case in WHOLE_ROWS if case not in REFUSED)
FITTING_TRAINED = tuple(case for case in TRAINED if case not in REFUSED)


@pytest.mark.parametrize("family", WITH_EXPERTS)
def test_every_site_works(family: str) -> None:
    assert not {site: why for site, why in frozen(family).conformance.sites.items() if why}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_changes_a_feed_forward_s_projection_is_refused(case: str) -> None:
    with pytest.raises(InputError, match=r"matches no linear of this qwen3_moe model; there are"):
        method(case).check(model(FAMILY).shape)


@cache
def _mixed() -> dict[str, torch.Tensor]:
    """The logits of one row a case, all cases in one batch."""
    them = [made(case, FAMILY) for case in FITTING]
    first = [it.rows(owner, 1)[0] for owner, it in enumerate(them)]
    logits = them[0].logits(first, *(it.edits(it.moved).detach() for it in them))
    return dict(zip(FITTING, logits, strict=True))


@pytest.mark.parametrize("case", FITTING)
def test_a_batch_of_all_methods_equals_the_row_alone(case: str) -> None:
    it = made(case, FAMILY)
    (expected,) = it.logits(it.rows(0, 1), it.edits(it.moved))
    torch.testing.assert_close(_mixed()[case], expected, atol=2e-5, rtol=1e-5)


def _losses(it: Trial, share: bool = True, **how: bool) -> tuple[torch.Tensor, Tensors]:
    state = leaves(it.moved)
    losses = it.losses(state, seed=4, share=share, options=ForwardOptions(**how))
    losses.sum().backward()
    return losses.detach(), gradients(state)  # of an expert that no token goes to there is none


@pytest.mark.parametrize("case", FITTING_TRAINED)
def test_recomputed_blocks_and_slow_paths_give_the_same(case: str) -> None:
    it = made(case, FAMILY)
    expected, plain = _losses(it)
    assert plain
    ways = [{"checkpoint": True}]
    if "dropout" not in case:  # its masks hang on how many tokens a block runs on
        ways.append({"fast": False, "share": False})
    for how in ways:
        losses, own = _losses(it, **how)
        torch.testing.assert_close(losses, expected, atol=2e-5, rtol=1e-5)
        require_close_gradients(own, plain, it.tolerance)


@pytest.mark.parametrize("case", ["prompt_tuning", "prefix_tuning", "lora", "bitfit", "last_k"])
def test_generated_tokens_are_those_of_the_uncached_forward(case: str) -> None:
    rows.generated.check(made(case, FAMILY))


def test_a_tiny_model_has_several_experts() -> None:
    """A negative control: other experts would be taken with another router."""
    lm = model(FAMILY)
    row = list(range(5, 25))
    with torch.no_grad():
        expected = lm(
            pack([Row(row, 0, 0)], [made("lora", FAMILY).edits(made("lora", FAMILY).first)])
        )
        other = tiny_family(FAMILY)
        for name, parameter in other.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.neg_()
        got = other.eval()(torch.tensor([row])).logits[0]
    assert float((got - expected).abs().max()) > 1e-2
