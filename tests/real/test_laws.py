"""The laws of `peftlab.laws`, for every registered method as it comes, on the real model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch

from peftlab.edits import Edits
from peftlab.laws import LAWS, Law, NotApplicable, Trial
from peftlab.laws.law import require_close
from peftlab.methods import REGISTRY, parse_one
from tests.laws import world
from tests.models import tiny
from tests.real_model import REAL

_TOLERANCE = 3e-4  # thirty blocks' rounding, of logits of twenty and more
# Its projection of 134 million numbers takes 15 seconds, each time: the laws that ask for it once.
_SLOW = {
    "intrinsic": {"declared", "stored_settings", "counted", "identity", "every_tensor", "saved"}
}
# From the cue on: the laws whose numbers hang on where a row begins.
_OF_THE_CUE = {
    "packed", "mixed", "cached", "generated", "base_before", "kept_alike", "whole_row", "saved",
}  # fmt: skip
_AT_CUE = {
    f"{name}:begin=cue": _OF_THE_CUE
    for name in ("lora", "prefix_tuning", "prompt_tuning", "bottleneck")
}
_SAMPLE = {
    "identity": {"lora"},
    "packed": {"lora", "prefix_tuning"},
    "cached": {"bottleneck", "lora", "prefix_tuning", "prompt_tuning", "prefix_tuning:begin=cue"},
    "base_before": {"lora:begin=cue"},
    "saved": {"lora"},
    "every_tensor": {"ia3", "lora", "p_tuning"},
    "interrupted": {"lora"},
}


@cache
def _trial(name: str) -> Trial:
    made = Trial(parse_one(name), world.model(REAL), world.task(), tolerance=_TOLERANCE)
    made.method.check(made.model.shape)
    return made


def _cases() -> Iterator[Any]:
    for law in LAWS:
        for name in [*sorted(REGISTRY), *_AT_CUE]:
            few = (_SLOW | _AT_CUE).get(name, {str(law)})
            if law.applies(parse_one(name)) and str(law) in few:
                sampled = name in _SAMPLE.get(str(law), ())
                marks = [pytest.mark.sample] if sampled else []
                yield pytest.param(law, name, id=f"{law}-{name}", marks=marks)


@pytest.mark.parametrize(("law", "name"), list(_cases()))
def test_it_holds(law: Law, name: str) -> None:
    with suppress(NotApplicable):
        law.check(_trial(name))


@pytest.mark.sample
def test_every_site_works() -> None:
    assert not {site: why for site, why in world.model(REAL).conformance.sites.items() if why}


@pytest.mark.sample
def test_the_frozen_model_is_the_plain_one() -> None:
    it, plain = _trial("lora"), tiny(REAL)
    rows = it.rows()
    with torch.no_grad():
        expected = [plain(torch.tensor([r.ids])).logits[0, r.keep_from :] for r in rows]
    require_close(it.logits(rows, Edits()), expected, _TOLERANCE, "transformers' own logits differ")
