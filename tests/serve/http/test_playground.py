"""The playground's replies in a real browser: streamed, stopped, refused, and never HTML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.browsing import Opened, browser
from tests.serve.http.playground import (
    DONE,
    EVIL,
    LONG,
    Brake,
    Site,
    ask,
    brake,
    choose,
    event,
    forgiven,
    opened,
    ready,
    said,
    site,
    stand_in,
    stream,
    text,
    until,
)
from tests.serve.http.server import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["brake", "browser", "opened", "site"]

pytestmark = pytest.mark.slow


def test_replies_stream_side_by_side(opened: Opened, site: Site, brake: Brake) -> None:
    page, (one, other) = opened.page, site.talkers
    choose(page, one, other)
    brake.seconds = 0.25
    ask(page, site.source)
    busy = page.locator(".card[aria-busy=true]")
    until(lambda: bool(text(page, one)) and bool(text(page, other)))
    assert busy.count() == 2, "both are under way at once"
    early = text(page, one)
    brake.seconds = 0.0
    said(page, "2 replies")
    assert busy.count() == 0
    for name in (one, other):
        reply, card = site.alone(name), page.locator(f".card[data-adapter='{name}']")
        assert text(page, name) == reply.text
        assert card.locator(".tokens").inner_text() == str(len(reply.tokens))
        assert card.locator(".end").inner_text() == f"Cut at {LONG} tokens."
        first, total = (card.locator(part).inner_text() for part in (".first", ".total"))
        assert first.endswith("s") and total.endswith("s")
    assert len(early) < len(text(page, one)) and text(page, one).startswith(early)


def test_a_reply_that_ends_says_so(opened: Opened, site: Site) -> None:
    page, first = opened.page, site.alone(site.talkers[0]).text.split()[0]
    choose(page, site.talkers[0])
    page.get_by_label("Stop before").fill(f"no such text\n{first[1:]}")
    ask(page, site.source)
    said(page, "1 reply")
    assert text(page, site.talkers[0]) == first[:1]
    assert page.locator(".end").inner_text() == "Came to its end, or to a text to stop before."


def test_a_seed_makes_a_reply_repeatable(opened: Opened, site: Site) -> None:
    page, texts = opened.page, []
    choose(page, site.talkers[0])
    page.get_by_label("Temperature").fill("2")
    for seed in ("5", "6", "5"):
        page.get_by_label("Seed").fill(seed)
        ask(page, site.source, tokens=12)
        said(page, "1 reply")
        texts.append(text(page, site.talkers[0]))
    assert texts[0] == texts[2] != texts[1]


@pytest.mark.parametrize("how", ["button", "Escape", "remove"])
def test_stopping_ends_the_work_of_the_server(
    opened: Opened, site: Site, brake: Brake, how: str
) -> None:
    page, (one, other) = opened.page, site.talkers
    choose(page, one, other)
    brake.seconds = 0.25
    ask(page, site.source)
    until(lambda: bool(text(page, one)) and bool(text(page, other)))
    if how == "button":
        page.locator("#stop-all").click()
    elif how == "Escape":
        page.keyboard.press("Escape")
    else:
        for name in (one, other):
            page.get_by_role("button", name=f"Take {name} away").click()
    until(lambda: site.engine.stats().running == 0)
    brake.seconds = 0.0
    if how == "remove":
        assert page.locator(".card").count() == 0
        assert page.get_by_text("No adaptation is chosen yet.").is_visible()
        return
    said(page, "2 stopped")
    assert 0 < len(text(page, one)) < len(site.alone(one).text)
    assert page.locator(".end").all_inner_texts() == ["Stopped here."] * 2


def test_what_is_typed_and_received_is_never_html(opened: Opened, site: Site) -> None:
    page = opened.page
    choose(page, site.talkers[0])
    ask(page, EVIL + " the cat sings", tokens=3)
    said(page, "1 reply")
    card = {"id": "evil", "parent": "base", "peftlab": {"method": EVIL, "task": EVIL}}
    stand_in(page, "v1/models", json={"data": [card]})
    stand_in(page, "v1/models/evil/example", json={"source": EVIL})
    events = event(text=EVIL), event(finish_reason="stop"), DONE
    stand_in(page, "v1/completions", **stream(*events))
    page.get_by_role("button", name="Refresh").click()
    page.locator("#list .facts", has_text="onerror").wait_for()
    page.locator("#examples button").click()
    assert page.locator("#source").input_value() == EVIL
    page.locator("#run").click()
    said(page, "1 reply")
    assert text(page, "evil") == EVIL
    assert page.locator("main img, main script").count() == 0


def test_errors_are_told_on_their_card(opened: Opened, site: Site) -> None:
    page, (one, other) = opened.page, site.talkers
    choose(page, one, other)
    own = json.dumps({"error": {"message": "the prompt has 99 tokens"}})
    for status, body, expected in (
        (400, own, "the prompt has 99 tokens"),
        (502, "<h1>Bad gateway</h1>", "The server answered 502 Bad Gateway"),
    ):
        stand_in(page, "v1/completions", of=one, status=status, body=body)
        ask(page, site.source, tokens=3)
        said(page, "1 reply, 1 failed")
        card = page.locator(f".card[data-adapter='{one}']")
        assert card.locator(".problem").inner_text() == expected
        page.unroute("**/v1/completions")
    card.get_by_role("button", name="Try again").click()
    said(page, "2 replies")
    assert card.locator(".problem").is_hidden()
    forgiven(opened, "Failed to load resource")


def test_a_full_server_says_when_to_come_again(opened: Opened, site: Site) -> None:
    page = opened.page
    choose(page, site.talkers[0])
    body = json.dumps({"error": {"message": "256 requests are waiting"}})
    stand_in(page, "v1/completions", status=429, headers={"Retry-After": "1"}, body=body)
    ask(page, site.source, tokens=3)
    said(page, "1 failed")
    problem = page.locator(".card .problem").inner_text()
    assert problem == "256 requests are waiting\nIt asks to wait 1 s."
    again = page.get_by_role("button", name="Try again")
    assert again.is_disabled()
    page.unroute("**/v1/completions")
    until(again.is_enabled)
    again.click()
    said(page, "1 reply")
    forgiven(opened, "Failed to load resource")


def test_a_broken_connection_is_no_reply(opened: Opened, site: Site) -> None:
    page = opened.page
    choose(page, site.talkers[0])
    failed = 'data: {"error": {"message": "the step failed"}}\n\n'
    for events, shown in (
        ([event(text="half")], "The connection ended before the reply did."),
        ([event(text="half"), failed], "the step failed"),
    ):
        stand_in(page, "v1/completions", **stream(*events))
        ask(page, site.source)
        said(page, "1 failed")
        assert shown in page.locator(".card .problem").inner_text()
        assert text(page, site.talkers[0]) == "half"
        page.unroute("**/v1/completions")
    page.route("**/v1/completions", lambda route: route.abort())
    ask(page, site.source)
    page.get_by_text("The server cannot be reached.").wait_for()
    forgiven(opened, "Failed to load resource")


def test_events_are_read_wherever_the_network_cuts_them(opened: Opened) -> None:
    sent = ": hello\r\n\r\n" + event(text="naïve – ").replace("\n", "\r\n")
    sent += event(text="日本").replace("\n", "\r") + "event: x\ndata:[DONE]\n\n"
    data = list(sent.encode())
    for size in (1, 2, 3, 7, 1000):
        decoded = opened.page.evaluate(
            """async ([data, size]) => {
              const body = new ReadableStream({ start(control) {
                for (let i = 0; i < data.length; i += size)
                  control.enqueue(new Uint8Array(data.slice(i, i + size)));
                control.close();
              } });
              const before = window.fetch;
              window.fetch = async () => new Response(body);
              try {
                const api = await import("/playground/api.js");
                let text = "";
                for await (const choice of api.complete({})) text += choice.text;
                return text;
              } finally { window.fetch = before; }
            }""",
            [data, size],
        )
        assert decoded == "naïve – 日本"


def test_an_adapter_that_has_gone_is_told_and_leaves_the_list(browser: Browser) -> None:
    with serving() as server:
        opened = Opened(browser, f"{server.url}/")
        page = opened.page
        ready(page)
        choose(page, "a8", "a9")
        server.engine.library.unload("a8")
        ask(page, "the cat sings", tokens=2)
        said(page, "1 reply, 1 failed")
        assert "there is no adapter 'a8'" in page.locator(".problem:visible").inner_text()
        page.get_by_role("button", name="Refresh").click()
        until(lambda: page.locator(".card").count() == 1)
        forgiven(opened, "Failed to load resource")
        opened.close()
