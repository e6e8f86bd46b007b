"""A real browser for tests: Debian's chromium, driven by playwright.

Skipped where one of them is missing, unless this is CI.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


PATIENCE = 120_000  # milliseconds, on a machine that does other things


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing; CI needs it")
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of one module."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        _missing("playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        _missing("chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield launched
        launched.close()


class Opened:
    """A page with what it complained of and asked for."""

    def __init__(self, browser: Browser, address: str, **context: Any) -> None:
        self.address = address
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **context}
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.forgiven: list[str] = []  # parts of complaints that are expected, whenever they come
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def close(self) -> None:
        """End it; nothing may have been complained of, and nothing asked of anybody else."""
        self.context.close()
        grave = [c for c in self.complaints if not any(part in c for part in self.forgiven)]
        assert not grave, grave
        own = (self.address, "data:")
        assert [url for url in self.asked if not url.startswith(own)] == []


def ground(page: Page) -> str:
    """The page's background, as the browser sees it."""
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def rgb(colour: str) -> str:
    """`#rrggbb` as a browser writes it."""
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
