"""Replies of the real model: transformers' own, greedy and by beams, in a chat, and served."""

from __future__ import annotations

import pytest

from peftlab.tasks import Decoding
from tests.generation import test_generate
from tests.real_model import REAL
from tests.serve import test_engine
from tests.serve import world as serving

_WAYS: list[tuple[Decoding, dict[str, object]]] = [
    (Decoding(), {}),
    (Decoding(beams=3), {"num_beams": 3}),
    (Decoding(beams=4, length_penalty=0.6), {"num_beams": 4, "length_penalty": 0.6}),
]


@pytest.mark.parametrize(
    ("decoding", "options"),
    [pytest.param(*way, marks=pytest.mark.sample if i < 2 else ()) for i, way in enumerate(_WAYS)],
)
def test_greedy_and_beam_search_are_those_of_transformers(
    decoding: Decoding, options: dict[str, object]
) -> None:
    test_generate.test_greedy_and_beam_search_are_those_of_transformers(REAL, decoding, options)


def test_a_mixed_batch_answers_as_each_request_alone() -> None:
    test_generate.test_a_mixed_batch_answers_as_each_request_alone(REAL, 64)


_FEW = tuple(serving.NAMES[i] for i in (2, 4, 9))  # a prompt, a prefix, LoRA


@pytest.mark.parametrize(
    "names", [pytest.param(_FEW, id="few", marks=pytest.mark.sample), serving.NAMES]
)
def test_methods_served_in_one_batch_answer_as_each_alone(names: tuple[str, ...]) -> None:
    test_engine.test_all_methods_in_one_batch_answer_as_each_alone(REAL, names)
