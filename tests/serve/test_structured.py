"""Structured replies in the engine: mixed with free ones, under the mask, and their ends."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.serve import ServeRequest
from peftlab.structured import Structure
from peftlab.tasks import Decoding
from tests.serve.test_engine import SAMPLED, engine
from tests.serve.world import LONGEST, NAMES, alone, compare, run, sources

PATTERN = "(red|blue|green) (cat|dog|bird|house|river)"


def test_every_method_follows_a_structure_beside_free_rows() -> None:
    """And streams it; the others' replies are what they are alone."""
    served = engine(slots=8)
    held = [
        served.submit(ServeRequest(name, sources()[0], 40, structure=Structure("regex", PATTERN)))
        for name in NAMES
    ]
    free = [served.submit(ServeRequest(name, sources()[1], LONGEST)) for name in NAMES]
    run(served)
    for ticket in held:
        reply = ticket.result(0)
        assert re.fullmatch(PATTERN, reply.text), reply.text
        assert reply.finished == "end"
        assert "".join(piece.text for piece in ticket) == reply.text
    exact = [
        compare(ticket.result(0), alone(name, 0, sources()[1]))
        for ticket, name in zip(free, NAMES, strict=True)
    ]
    assert sum(exact) >= 0.9 * len(exact)


@pytest.mark.parametrize("decoding", [Decoding(), SAMPLED])
def test_log_probabilities_are_among_what_is_allowed(decoding: Decoding) -> None:
    served = engine()
    structure = Structure.of_choices(["red", "blue"])
    ticket = served.submit(
        ServeRequest("a9", sources()[0], 9, decoding=decoding, logprobs=20, structure=structure)
    )
    run(served)
    for token in ticket.result(0).tokens:
        assert math.isclose(sum(math.exp(p) for _, p in token.alternatives), 1, rel_tol=1e-4)
        assert all(math.isfinite(p) for _, p in token.alternatives) and token.logprob is not None


def test_a_budget_that_ends_inside_is_length() -> None:
    served = engine()
    ticket = served.submit(
        ServeRequest("a9", sources()[0], 2, structure=Structure("regex", "(red ){9}"))
    )
    run(served)
    assert ticket.result(0).finished == "length"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"min_new_tokens": 2}, "leave min_new_tokens out"),
        ({"decoding": Decoding(no_repeat_ngram=2)}, "leave no_repeat_ngram out"),
        ({"stop_ids": (5,)}, "leave stop_token_ids out"),
        ({"stop_ids": (5_000,), "structure": None}, "ids below 120 were expected"),
        ({"decoding": Decoding(json_schema="{}"), "structure": None}, "takes a `structure`"),
        ({"structure": Structure("regex", "(")}, "does not compile"),
    ],
)
def test_what_cannot_be_followed_is_refused_at_once(how: dict[str, Any], said: str) -> None:
    given = {"structure": Structure("regex", PATTERN), **how}
    with pytest.raises(InputError, match=said):
        engine().submit(ServeRequest("a9", sources()[0], 9, **given))


def test_a_dead_end_ends_its_own_request_alone() -> None:
    """The tokenizer writes `red`, and has no token for what has to follow."""
    served = engine()
    lost = served.submit(
        ServeRequest("a9", sources()[0], 9, structure=Structure("regex", "red\\{\\}"))
    )
    kept = served.submit(ServeRequest("a9", sources()[0], LONGEST))
    run(served)
    with pytest.raises(InputError, match="no token for it"):
        lost.result(0)
    assert compare(kept.result(0), alone("a9", 0, sources()[0]))
    assert served.stats().running == 0
