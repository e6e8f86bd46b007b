"""One server for all tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.serve.http.server import Server, serving


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """All adapters of the world and the base, as gpt2."""
    with serving() as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """The official client."""
    with server.openai() as made:
        yield made
