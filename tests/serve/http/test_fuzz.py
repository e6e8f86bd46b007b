"""Whatever fits the server's own description of itself, and what does not, is never its failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import booleans
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from peftlab.serve import Library
from tests.laws import world as laws
from tests.serve.http.server import Server, serving
from tests.serve.http.test_adapters import stored
from tests.serve.http.test_limits import answers_well

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("a2", "a9"):
        stored(name).save(folder / name)
    with serving(Library(laws.model("gpt2"), folder)) as running:
        yield running


def fuzz(url: str, operation: Any, mode: GenerationMode, examples: int) -> None:
    """Requests made of an operation's description, or against it."""

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), known=booleans())
    def sent(case: schemathesis.Case, known: bool) -> None:
        if known:  # random names would all end at the same 404
            if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body["model"] = "a9"
            if "name" in (case.path_parameters or {}):
                case.path_parameters["name"] = "a9"
        case.call_and_validate(base_url=url, checks=CHECKS)

    with suppress(Unsatisfiable):  # an operation without input cannot be sent anything wrong
        sent()


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_input_makes_it_fail(fuzzed: Server, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert len(operations) == 11
    for operation in operations:
        fuzz(fuzzed.url, operation, mode, 60 if operation.method == "post" else 20)


@pytest.mark.slow
def test_after_all_that_it_answers_well(fuzzed: Server) -> None:
    with httpx.Client(base_url=fuzzed.url) as http:
        http.put("/v1/adapters/a9")
    answers_well(fuzzed)
