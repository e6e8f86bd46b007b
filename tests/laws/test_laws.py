"""Every method keeps every law, on several families; and what breaks a law is told."""

from __future__ import annotations

from contextlib import suppress

import pytest

from peftlab.laws import LAWS, Law, NotApplicable
from tests.laws.cases import AT_CUE, CASES, made, method
from tests.laws.world import FAMILIES

# Those whose numbers hang on how a family's blocks are made; others run on one family a case.
_EVERY_FAMILY = {
    "identity", "effective", "every_tensor", "recomputed", "packed", "mixed", "below", "cached",
    "generated", "saved", "base_before", "whole_row",
}  # fmt: skip


# Where a row begins is nothing to these: one case that begins at the cue stands for all.
_WHEREVER = {
    "declared", "stored_settings", "one_rate_each", "counted", "laid_out", "share_of_the_base",
    "seeded", "function_of_the_state", "learns", "autocast", "base_untouched", "saving",
}  # fmt: skip


# Those that say what a change that begins at the cue is run on a family with norms of queries and
# keys besides.
_OF_THE_CUE = {"packed", "mixed", "cached", "generated", "base_before", "whole_row"}


def _families(law: Law, case: str) -> tuple[str, ...]:
    if str(law) in _OF_THE_CUE and case in AT_CUE:
        return (*FAMILIES, "qwen3")
    if str(law) in _WHEREVER and case in AT_CUE and case != "lora:begin=cue":
        return ()
    return FAMILIES if str(law) in _EVERY_FAMILY else (FAMILIES[CASES.index(case) % len(FAMILIES)],)


@pytest.mark.parametrize(
    ("law", "case", "family"),
    [
        pytest.param(law, case, family, id=f"{law}-{case}-{family}")
        for law in LAWS
        for case in CASES
        if law.applies(method(case))
        for family in _families(law, case)
    ],
)
def test_it_holds(law: Law, case: str, family: str) -> None:
    with suppress(NotApplicable):  # what it is not applicable to, test_check_method says
        law.check(made(case, family))


def test_every_law_is_named_once_and_runs_for_several_cases() -> None:
    assert len({law.name for law in LAWS}) == len({str(law) for law in LAWS}) == len(LAWS)
    assert {str(law) for law in LAWS} >= _EVERY_FAMILY | _WHEREVER | _OF_THE_CUE
    for law in LAWS:
        assert sum(law.applies(method(case)) for case in CASES) > 5, law
