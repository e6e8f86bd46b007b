"""The laws of tests/laws, for every registered method as it comes, on the real model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from peftlab.methods import REGISTRY
from tests.laws import test_gradients, test_rows, test_start, test_storage, test_training, world
from tests.laws.cases import method
from tests.real_model import REAL

_METHODS = tuple(sorted(REGISTRY))
_TRAINED = tuple(name for name in _METHODS if method(name).trains)
# Its projection of 134 million numbers takes 15 seconds, at each step.
_QUICK = tuple(name for name in _METHODS if name != "intrinsic")
_STARTS_AS_BASE = tuple(name for name in _METHODS if method(name).starts_as_base)

Law = Callable[[str, Path], None]
_LAWS: dict[str, tuple[Law, Sequence[str]]] = {
    "starts as the base": (
        lambda name, _: test_start.test_identity_at_initialisation(name, REAL),
        _STARTS_AS_BASE,
    ),
    "among all methods = alone": (
        lambda name, _: test_rows.test_a_batch_of_all_methods_equals_each_row_alone(
            name, REAL, _QUICK
        ),
        _QUICK,
    ),
    "packed = separate": (
        lambda name, _: test_rows.test_packed_equals_separate_and_a_start_run_once_equals_one_a_row(
            name, REAL
        ),
        _QUICK,
    ),
    "nothing below the lowest block": (
        lambda name, _: test_rows.test_nothing_changes_below_the_lowest_block(name, REAL),
        _METHODS,
    ),
    "cached = uncached": (
        lambda name, _: test_rows.test_cached_decoding_equals_the_uncached_forward(name, REAL),
        _METHODS,
    ),
    "generated = uncached": (
        lambda name, _: test_rows.test_generated_tokens_are_those_of_the_uncached_forward(
            name, REAL
        ),
        _QUICK,
    ),
    "saved = loaded": (
        lambda name, folder: test_storage.test_saved_and_loaded_it_gives_the_same_logits(
            name, REAL, folder
        ),
        _METHODS,
    ),
    "count = formula": (
        lambda name, _: test_storage.test_counts_equal_the_closed_formula(REAL, name),
        _METHODS,
    ),
    "gradients": (
        lambda name, _: test_gradients.test_every_tensor_gets_a_gradient_right_after_an_evaluation(
            name, REAL
        ),
        _TRAINED,
    ),
    "interrupted = uninterrupted": (
        lambda name, folder: test_training.test_interrupted_and_resumed_equals_uninterrupted(
            name, folder, REAL
        ),
        _QUICK,
    ),
    "the base stays": (
        lambda name, _: test_training.test_the_base_is_the_same_after_training_and_evaluation(
            name, REAL
        ),
        _QUICK,
    ),
    "learns": (
        lambda name, folder: test_training.test_it_learns_at_its_own_rate(name, folder, REAL, 8),
        tuple(name for name in _TRAINED if name in _QUICK),
    ),
}
_SAMPLE = {
    "starts as the base": ("lora",),
    "packed = separate": ("lora", "prefix_tuning"),
    "cached = uncached": ("lora", "prefix_tuning", "prompt_tuning", "bottleneck"),
    "saved = loaded": ("lora",),
    "gradients": ("lora", "p_tuning", "ia3"),
    "interrupted = uninterrupted": ("lora",),
    "learns": ("lora", "prompt_tuning"),
}


def _cases() -> Iterator[Any]:
    for law, (_, names) in _LAWS.items():
        for name in names:
            marks = [pytest.mark.sample] if name in _SAMPLE.get(law, ()) else []
            yield pytest.param(law, name, id=f"{law}: {name}", marks=marks)


@pytest.mark.parametrize(("law", "name"), list(_cases()))
def test_law(law: str, name: str, tmp_path: Path) -> None:
    held, _ = _LAWS[law]
    held(name, tmp_path)


@pytest.mark.sample
def test_every_site_works() -> None:
    assert not {site: why for site, why in world.model(REAL).conformance.sites.items() if why}


@pytest.mark.sample
def test_the_frozen_model_is_the_plain_one() -> None:
    test_start.test_the_frozen_model_is_the_plain_one(REAL)
