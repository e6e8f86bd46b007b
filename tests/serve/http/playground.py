"""The playground as tests use it: a server of tiny adapters, and what a person does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from peftlab.serve import Engine, Reply, ServeRequest
from tests.browsing import PATIENCE, Opened
from tests.serve import world
from tests.serve.http.server import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
DONE = "data: [DONE]\n\n"
LONG = 40  # tokens


@dataclass
class Brake:
    """seconds: that each step of an engine waits, so that there is something to watch and stop."""

    seconds: float = 0.0


@pytest.fixture
def brake(monkeypatch: pytest.MonkeyPatch) -> Brake:
    """Slow engines down for one test, as much and as long as it likes."""
    step, made = Engine.step, Brake()

    def slow(engine: Engine) -> bool:
        time.sleep(made.seconds)
        return step(engine)

    monkeypatch.setattr(Engine, "step", slow)
    return made


@dataclass(frozen=True)
class Site:
    """A server, and adapters of it whose replies to `source` are LONG tokens long."""

    address: str
    engine: Engine
    talkers: tuple[str, str]
    source: str

    def alone(self, name: str, tokens: int = LONG) -> Reply:
        """What the engine answers, asked directly."""
        return self.engine.submit(ServeRequest(name, self.source, tokens)).result(60)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as server:
        source = world.sources()[0]
        asked = [server.engine.submit(ServeRequest(name, source, LONG)) for name in world.NAMES]
        replies = {ticket.request.adapter: ticket.result(60) for ticket in asked}
        talkers = [name for name, reply in replies.items() if len(reply.tokens) == LONG]
        yield Site(f"{server.url}/", server.engine, (talkers[0], talkers[1]), source)


@pytest.fixture
def opened(browser: Browser, site: Site) -> Iterator[Opened]:
    made = Opened(browser, site.address)
    ready(made.page)
    yield made
    made.close()


def ready(page: Page) -> None:
    """Wait for the list, and leave nothing chosen."""
    page.locator("#list input").first.wait_for(state="attached")
    if page.locator("#browse").is_visible():
        page.locator("#browse").click()
    page.get_by_role("button", name="Choose none").click()


def choose(page: Page, *names: str) -> None:
    for name in names:
        page.get_by_role("checkbox", name=re.compile(rf"^{name}\b")).check()


def ask(page: Page, source: str, tokens: int = LONG) -> None:
    page.get_by_label("Source", exact=True).fill(source)
    page.get_by_label("Most tokens").fill(str(tokens))
    page.locator("#run").click()


def text(page: Page, name: str) -> str:
    return str(page.locator(f".card[data-adapter='{name}'] .text").text_content())


def said(page: Page, what: str) -> None:
    """Wait for the line beside the buttons."""
    page.locator("#state", has_text=what).wait_for()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE / 1000
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def event(**choice: Any) -> str:
    tokens = {"tokens": ["x"], "token_logprobs": [0.0], "top_logprobs": [], "text_offset": [0]}
    whole = {"index": 0, "text": "", "logprobs": tokens, "finish_reason": None, **choice}
    return f"data: {json.dumps({'choices': [whole]})}\n\n"


def stand_in(page: Page, path: str, *, of: str | None = None, **answer: Any) -> None:
    """Answer in the server's place, if only where this adapter is asked."""

    def handle(route: Route) -> None:
        if of is not None and route.request.post_data_json["model"] != of:
            route.continue_()
        else:
            route.fulfill(**answer)

    page.route(f"**/{path}", handle)


def stream(*events: str) -> dict[str, str]:
    return {"body": "".join(events), "content_type": "text/event-stream"}


def forgiven(opened: Opened, what: str) -> None:
    """Leave out what the browser itself says of an answer that is an error."""
    opened.forgiven.append(what)
