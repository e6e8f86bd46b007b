"""The page in a real browser: sorting, pointing, filtering, colours, no error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from peftlab import palette
from peftlab.report.page import write
from peftlab.report.records import read
from tests.browsing import Opened, browser, ground, rgb
from tests.report.pages import comparison

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("runs")
    comparison(out)
    return write(out, read(out)).as_uri()


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Opened]:
    made = Opened(browser, address)
    yield made
    made.close()


def column(page: Page, number: int) -> list[str]:
    cells = f"table.wide tbody tr > :nth-child({number})"
    return [str(cell.get_attribute("data-value")) for cell in page.query_selector_all(cells)]


def test_columns_sort_both_ways_and_failures_stay_last(opened: Opened) -> None:
    page = opened.page
    assert column(page, 1)[-1] == "ia3"
    head = page.locator("table.wide thead th", has_text="trainable")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    numbers = [float(value) for value in column(page, 4)[:3]]
    assert numbers == sorted(numbers) == [0, 24_576, 1_000_000]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(value) for value in column(page, 4)[:3]] == numbers[::-1]
    assert column(page, 1)[-1] == "ia3"
    assert page.locator("table.wide [aria-sort]").count() == 1
    page.locator("table.wide thead th").first.get_by_role("button").click()
    assert column(page, 1) == sorted(column(page, 1))


def test_pointing_and_focus_tell_the_numbers(opened: Opened) -> None:
    page = opened.page
    tip, point = page.locator("#tip"), page.locator(".for-wide .point[data-method=lora]:visible")
    assert not tip.is_visible()
    point.locator(".mark").hover()
    assert tip.is_visible() and "24.6 thousand trainable parameters" in tip.inner_text()
    assert "interval" in tip.inner_text()
    page.mouse.move(5, 5)
    assert not tip.is_visible()
    point.focus()
    assert tip.is_visible() and tip.inner_text().startswith("lora")
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.locator("#curves .key", has_text="full").hover()
    assert page.locator("#curves .curve.followed").count() == 2


def test_the_cost_axis_can_be_chosen(opened: Opened) -> None:
    page = opened.page
    assert page.locator("figure[data-cost]:visible").count() == 1
    page.get_by_text("serving latency", exact=True).last.click()
    shown = page.locator("figure[data-cost]:visible")
    assert shown.get_attribute("data-cost") == "latency"
    page.keyboard.press("ArrowLeft")
    assert shown.get_attribute("data-cost") == "training_seconds"


def test_predictions_are_searched_and_filtered(opened: Opened) -> None:
    page = opened.page
    assert page.locator(".example:visible").count() == 8
    page.locator("#search").fill("place 3")
    assert page.locator(".example:visible").count() == 1
    assert page.locator("#count").inner_text() == "1 of 8 shown"
    page.locator("#search").fill("<SCRIPT>")
    assert page.locator(".example:visible").count() == 8
    page.locator("#search").fill("no such words")
    assert page.locator("#nothing").is_visible()
    page.locator("#search").fill("")
    page.locator("#only").select_option("lora")
    first = page.locator(".example[open]").first
    assert first.locator(".answers li:visible").count() == 1
    assert first.locator("ins").first.is_visible()
    page.locator("#marks").uncheck()
    assert first.locator("del:visible").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_button(
    browser: Browser, address: str, scheme: str
) -> None:
    opened = Opened(browser, address, color_scheme=scheme)
    page, themes = opened.page, {"light": palette.LIGHT, "dark": palette.DARK}
    other = "dark" if scheme == "light" else "light"
    assert ground(page) == rgb(themes[scheme]["paper"])
    page.locator("#theme").click()
    assert ground(page) == rgb(themes[other]["paper"])
    page.reload()
    assert ground(page) == rgb(themes[other]["paper"])  # the choice is kept
    opened.close()


@pytest.mark.parametrize("width", [320, 390, 768, 1920])
def test_nothing_sticks_out_at_any_width(browser: Browser, address: str, width: int) -> None:
    opened = Opened(browser, address, viewport={"width": width, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    narrow = opened.page.locator("#cost .for-narrow").first.is_visible()
    assert narrow == (width <= 640)
    opened.close()


def test_it_is_readable_without_script(browser: Browser, address: str) -> None:
    opened = Opened(browser, address, java_script_enabled=False)
    page = opened.page
    assert page.locator("#theme").is_hidden() and page.locator("#filter").is_hidden()
    assert page.locator("table.wide tbody tr").count() == 4
    page.get_by_text("peak memory in training", exact=True).last.click()
    shown = page.locator("figure[data-cost]:visible")
    assert shown.get_attribute("data-cost") == "peak_memory"
    page.locator(".example summary").last.click()
    assert page.locator(".example").last.locator(".answers").is_visible()
    opened.close()
