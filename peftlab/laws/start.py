"""Before training: where a method starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftlab.edits import Edits
from peftlab.laws.law import law, require, require_close, untrained

if TYPE_CHECKING:
    from peftlab.laws.trial import Trial
    from peftlab.methods import Method

_MOVES = 1e-2  # how far a logit moves at least where every tensor does


@law("the start hangs on the seed alone")
def seeded(it: Trial) -> None:
    before = torch.get_rng_state()
    one, other = it.start(), it.start()
    drawn = not torch.equal(torch.get_rng_state(), before)
    same = one.tensors.keys() == other.tensors.keys() and one.text == other.text
    require(same, "init gives other names or texts the second time")
    differ = [n for n, t in one.tensors.items() if not torch.equal(t, other.tensors[n])]
    require(not differ, f"init draws from elsewhere than its generator: {', '.join(differ)}")
    require(not drawn, "init draws from torch's own generator beside that it is given")


def _starts_elsewhere(method: Method) -> str:
    return "" if method.starts_as_base else "it does not claim to start as the base"


@law("the start is the base, where claimed", _starts_elsewhere)
def identity(it: Trial) -> None:
    rows = [row._replace(begin=0) for row in it.rows()]
    require(rows == it.plain_rows(), "the method changes the text")
    expected = it.logits(it.rows(), Edits())
    for seed in (None, 7):
        got = it.logits(it.rows(), it.edits(it.first, seed))
        told = "the untrained method's logits are not the base's"
        require_close(got, expected, it.tolerance, told)


@law("training changes the output", untrained)
def effective(it: Trial) -> None:
    got, start = (it.logits(it.rows(), it.edits(state)) for state in (it.moved, it.first))
    gap = max(float((g - s).abs().max()) for g, s in zip(got, start, strict=True))
    require(gap > _MOVES, f"moving every tensor by 0.1 changes no logit by more than {gap:.1e}")
