"""Every method keeps every law, on several families; and what breaks a law is told."""

from __future__ import annotations

from contextlib import suppress

import pytest

from peftlab.laws import LAWS, Law, NotApplicable
from tests.laws.cases import CASES, made, method
from tests.laws.world import FAMILIES

# Those whose numbers hang on how a family's blocks are made; others run on one family a case.
_EVERY_FAMILY = {
    "identity", "effective", "every_tensor", "recomputed", "packed", "mixed", "below", "cached",
    "generated", "saved", "base_before", "whole_row",
}  # fmt: skip


def _families(law: Law, case: str) -> tuple[str, ...]:
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
    assert {str(law) for law in LAWS} >= _EVERY_FAMILY
    for law in LAWS:
        assert sum(law.applies(method(case)) for case in CASES) > 5, law
