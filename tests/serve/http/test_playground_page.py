"""The playground's page in a real browser: choosing, typing, keys, examples, colours, widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from peftlab.plots import palette
from peftlab.serve.http import Settings
from tests.browsing import Opened, browser, ground, rgb
from tests.laws import world as laws
from tests.serve import world
from tests.serve.http.playground import (
    EVIL,
    Site,
    ask,
    choose,
    forgiven,
    opened,
    ready,
    said,
    site,
    stand_in,
)
from tests.serve.http.server import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser", "opened", "site"]

pytestmark = pytest.mark.slow


def test_what_cannot_be_asked_is_told_before(opened: Opened, site: Site) -> None:
    page, problem = opened.page, opened.page.get_by_role("alert")
    ask(page, "   ")
    assert problem.inner_text() == "Type a source first."
    assert page.evaluate("document.activeElement.id") == "source"
    ask(page, site.source)
    assert problem.inner_text() == "Choose at least one adaptation."
    choose(page, site.talkers[0])
    for label, value in (("Most tokens", "0"), ("Temperature", "3"), ("Seed", "-1")):
        field = page.get_by_label(label)
        before = field.input_value()
        page.get_by_label(label).fill(value)
        page.locator("#run").click()
        assert problem.inner_text().startswith(f"{label}: ")
        assert field.get_attribute("aria-invalid") == "true"
        field.fill(before)
    assert not any("completions" in url for url in opened.asked)


def test_adaptations_are_searched_filtered_and_ordered(opened: Opened) -> None:
    page = opened.page
    cards = [
        {"id": f"{task}-{method}-{i}", "parent": "base",
         "peftlab": {"method": method, "task": task, "trainable": 10**i, "bytes": 5000 - i}}
        for task in ("mail", "news") for i, method in enumerate(["lora", "ia3", "bitfit"] * 40)
    ]  # fmt: skip
    stand_in(page, "v1/models", json={"data": cards})
    stand_in(page, "example", json={"source": None})
    page.get_by_role("button", name="Refresh").click()
    page.get_by_text("240 in all, 100 shown").wait_for()
    page.get_by_role("button", name="Show more").click()
    assert page.locator("#list li").count() == 200
    page.get_by_label("Search").fill("NEWS bit")
    assert page.locator("#found").inner_text() == "40 of 240"
    page.get_by_label("Search").fill("")
    page.get_by_label("Method").select_option("ia3")
    page.locator("#task").select_option("mail")
    assert page.locator("#list li").count() == 40
    page.get_by_label("ordered by").select_option("bytes")
    assert page.locator("#list .name").first.inner_text() == "mail-ia3-118"
    page.get_by_label("ordered by").select_option("trainable")
    assert page.locator("#list .name").first.inner_text() == "mail-ia3-1"
    page.get_by_label("Search").fill("no such")
    assert page.locator("#found").inner_text() == "None fits; search for less."


def test_six_are_chosen_at_most_and_by_keyboard(opened: Opened) -> None:
    page, boxes = opened.page, opened.page.locator("#list input")
    boxes.first.focus()
    for _ in range(6):
        page.keyboard.press("Space")
        page.keyboard.press("ArrowDown")
    assert page.locator("#list input:checked").count() == page.locator(".card").count() == 6
    assert page.locator("#list input:disabled").count() == boxes.count() - 6
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    assert page.locator("#list input:disabled").count() == 0
    assert page.locator(".card").count() == 5


def test_a_run_without_a_mouse(opened: Opened, site: Site) -> None:
    page = opened.page
    choose(page, site.talkers[0])
    page.get_by_label("Most tokens").fill("3")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "source"
    page.keyboard.type(site.source)
    page.keyboard.press("Control+Enter")
    said(page, "1 reply")


def test_what_is_chosen_and_typed_is_there_after_reloading(opened: Opened, site: Site) -> None:
    page = opened.page
    choose(page, *site.talkers)
    page.get_by_label("Source", exact=True).fill("half a thought")
    page.get_by_label("Seed").fill("7")
    page.reload()
    page.locator(".card").nth(1).wait_for()
    assert [card.get_attribute("data-adapter") for card in page.locator(".card").all()] == [
        *site.talkers
    ]
    assert page.get_by_label("Source", exact=True).input_value() == "half a thought"
    assert page.get_by_label("Seed").input_value() == "7"


def test_a_key_is_asked_for_and_kept_in_this_tab(browser: Browser) -> None:
    with serving(settings=Settings(api_keys=("right",))) as server:
        opened = Opened(browser, f"{server.url}/")
        page, form = opened.page, opened.page.locator("#key-form")
        for key in ("wrong", "right"):
            form.wait_for()
            assert page.locator("#list input").count() == 0
            page.get_by_label("API key", exact=True).fill(key)
            page.keyboard.press("Enter")
        page.locator("#list input").first.wait_for()
        assert form.is_hidden()
        ready(page)
        choose(page, "a9")
        ask(page, "the cat sings", tokens=2)
        said(page, "1 reply")
        page.reload()
        page.locator("#list input").first.wait_for()
        forgiven(opened, "Failed to load resource")
        opened.close()


def test_examples_come_from_the_run_or_the_exemplars(browser: Browser, tmp_path: Path) -> None:
    run, named = tmp_path / "runs" / "lora" / "seed-0", tmp_path / "hard"
    world.adaptation("a8", 0).save(run / "adapter")
    line = json.dumps({"index": 0, "source": "a source of the run's task"})
    (run / "predictions.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    world.adaptation("a1", 0).save(named)
    library = world.library()
    library.load("of_a_run", run / "adapter")
    library.load("of_exemplars", named)
    while library.load_one():
        pass
    with serving(library) as server:
        got = {
            name: httpx.get(f"{server.url}/v1/models/{name}/example").json()["source"]
            for name in ("of_a_run", "of_exemplars", "a9")
        }
        shown = [example.source for example in laws.task().train]
        assert got["of_a_run"] == "a source of the run's task"
        assert got["of_exemplars"] in shown
        assert got["a9"] is None
        assert httpx.get(f"{server.url}/v1/models/nobody/example").status_code == 404
        card = httpx.get(f"{server.url}/v1/models/of_a_run").json()["peftlab"]
        assert card["method"] == "lora" and card["loaded"] and card["trainable"] > 0
        cards = httpx.get(f"{server.url}/v1/models").json()["data"]
        assert card == next(it for it in cards if it["id"] == "of_a_run")["peftlab"]
        assert cards[0]["parent"] is cards[0]["peftlab"] is None, "the base comes first"
        opened = Opened(browser, f"{server.url}/")
        ready(opened.page)
        choose(opened.page, "of_a_run")
        opened.page.locator("#examples button").click()
        assert opened.page.locator("#source").input_value() == "a source of the run's task"
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_button(
    browser: Browser, site: Site, scheme: str
) -> None:
    opened = Opened(browser, site.address, color_scheme=scheme)
    page, themes = opened.page, {"light": palette.LIGHT, "dark": palette.DARK}
    other = "dark" if scheme == "light" else "light"
    assert ground(page) == rgb(themes[scheme]["paper"])
    page.locator("#theme").click()
    assert ground(page) == rgb(themes[other]["paper"])
    page.reload()
    assert ground(page) == rgb(themes[other]["paper"])
    opened.close()


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2200])
def test_nothing_sticks_out_at_any_width(browser: Browser, site: Site, width: int) -> None:
    opened = Opened(browser, site.address, viewport={"width": width, "height": 800})
    page = opened.page
    ready(page)
    choose(page, *site.talkers)
    ask(page, "a" * 400 + " " + EVIL, tokens=8)
    said(page, "2 ")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#browse").is_visible() == (width <= 1000)
    forgiven(opened, "Failed to load resource")
    opened.close()


def test_the_page_may_do_nothing_but_talk_to_its_server(site: Site) -> None:
    page = httpx.get(site.address)
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in page.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == policy["trusted-types"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in str(policy)
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("../__init__.py", "%2e%2e%2f__init__.py", "index.html", "nothing.js"):
        assert httpx.get(f"{site.address}playground/{name}").status_code == 404
    assert "/playground/{name}" not in httpx.get(f"{site.address}openapi.json").json()["paths"]
