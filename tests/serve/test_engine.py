"""One request: its reply, its pieces, its end, its errors; and turns between adapters."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.generation import Request as Asked
from peftlab.generation import generate
from peftlab.serve import (
    Closed,
    Engine,
    Failed,
    Library,
    Limits,
    Piece,
    QueueFull,
    Reply,
    ServeRequest,
    UnknownAdapter,
)  # fmt: skip
from peftlab.serve.feeding import shared_out
from peftlab.tasks import Decoding
from tests.laws import world as laws
from tests.serve import world
from tests.serve.world import NAMES, alone, compare, run, sources

SAMPLED = Decoding(sample=True, temperature=1.5, top_k=40)


def engine(family: str = "gpt2", names: tuple[str, ...] = NAMES, **limits: int) -> Engine:
    settings = {"slots": 6, "capacity": world.CAPACITY, "prefill_tokens": 16, **limits}
    return Engine(laws.model(family), world.library(family, names), Limits(**settings))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text"])
def test_all_methods_in_one_batch_answer_as_each_alone(
    family: str, names: tuple[str, ...] = NAMES
) -> None:
    """With prompts cut into pieces of at most 16 tokens, against prompts in one piece."""
    served = engine(family, names)
    asked = [(name, source) for source in sources()[:2] for name in names]
    tickets = [served.submit(ServeRequest(n, s, world.LONGEST)) for n, s in asked]
    run(served)
    exact = [
        compare(ticket.result(0), alone(name, 0, source, family))
        for ticket, (name, source) in zip(tickets, asked, strict=True)
    ]
    assert sum(exact) >= 0.9 * len(exact)


def test_alone_it_answers_as_generate_does() -> None:
    for name in NAMES:
        request = Asked(world.adaptation(name, 0), sources()[0], world.LONGEST)
        expected, reply = generate(laws.model("gpt2"), [request])[0], alone(name, 0, sources()[0])
        assert (reply.text, reply.finished) == (expected.text, expected.finished)
        assert tuple(token.id for token in reply.tokens) == expected.tokens
        assert reply.prompt_tokens == expected.prompt_tokens


def test_pieces_make_the_text_and_tell_every_token() -> None:
    served = engine()
    tickets = [served.submit(ServeRequest(n, sources()[0], 8, logprobs=1)) for n in NAMES]
    run(served)
    for ticket in tickets:
        pieces, reply = list(ticket), ticket.result(0)
        assert "".join(piece.text for piece in pieces) == reply.text
        assert tuple(token for piece in pieces for token in piece.tokens) == reply.tokens
        for token in reply.tokens:
            assert token.logprob == pytest.approx(token.alternatives[0][1])
            assert token.alternatives[0][0] == token.id, "greedy takes the likeliest"


def test_a_seed_decides_a_sampled_reply_whoever_else_is_there() -> None:
    request = ServeRequest("a9", sources()[0], 8, decoding=SAMPLED, seed=5)
    served = engine()
    first = served.submit(request)
    run(served)
    crowd = [served.submit(ServeRequest(name, sources()[1], 8)) for name in NAMES]
    again, other = served.submit(request), served.submit(replace(request, seed=6))
    run(served)
    assert again.result(0).text == first.result(0).text != other.result(0).text
    assert all(ticket.done for ticket in crowd)


def test_a_stop_string_ends_the_reply_before_it() -> None:
    whole = alone("a9", 0, sources()[0]).text
    stop = whole[len(whole) // 2 :][:2]
    for stream in (True, False):
        served = engine()
        ticket = served.submit(ServeRequest("a9", sources()[0], 8, stop=(stop,)), stream=stream)
        run(served)
        reply = ticket.result(0)
        assert reply.finished == "stop"
        assert reply.text == whole[: whole.index(stop)].strip()


def test_no_end_before_the_least_number_of_tokens() -> None:
    served = engine()
    tickets = [served.submit(ServeRequest(n, sources()[0], 8, min_new_tokens=8)) for n in NAMES]
    run(served)
    assert {len(ticket.result(0).tokens) for ticket in tickets} == {8}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": " \n"}, "prompt is empty"),
        ({"source": "cat " * 200}, "there is room for"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 10**9}, "at most 1,024"),
        ({"max_new_tokens": 89}, "there is room for"),
        ({"min_new_tokens": 9}, "min_new_tokens is 9; 0 to 8"),
        ({"stop": ("",)}, "none of them empty"),
        ({"logprobs": 21}, "logprobs is 21"),
        ({"decoding": Decoding(beams=2)}, "beams is 2"),
        ({"adapter": "a99"}, "no adapter 'a99'.*Did you mean"),
        ({"adapter": "../a9"}, "no adapter"),
    ],
)
def test_bad_requests_are_refused_and_disturb_nobody(change: dict[str, object], words: str) -> None:
    served, good = engine(), ServeRequest("a9", sources()[0], 8)
    ticket = served.submit(good)
    served.step()
    with pytest.raises(InputError, match=words):
        served.submit(replace(good, **change))  # type: ignore[arg-type]
    run(served)
    assert compare(ticket.result(0), alone("a9", 0, sources()[0]))
    assert isinstance(UnknownAdapter(""), InputError)


def test_a_long_source_is_cut_where_that_is_allowed() -> None:
    served = engine()
    ticket = served.submit(ServeRequest("a9", "cat " * 200, 8, truncate=True))
    run(served)
    reply = ticket.result(0)
    assert reply.dropped > 0 and reply.prompt_tokens + 8 <= world.CAPACITY


def test_too_much_memory_is_refused_with_what_would_fit() -> None:
    with pytest.raises(InputError, match=r"the limit is 100,000: \d+ slots would fit"):
        engine(cache_bytes=100_000)


def test_cancelled_at_any_step_it_ends_and_the_others_go_on() -> None:
    for steps in range(8):
        served = engine(slots=2)
        tickets = [served.submit(ServeRequest(f"a{i}", sources()[1], 8)) for i in (9, 4, 6)]
        for _ in range(steps):
            served.step()
        tickets[1].cancel()
        run(served)
        reply = tickets[1].result(0)
        assert reply.finished == "cancelled"
        assert "".join(piece.text for piece in tickets[1]) == reply.text
        compare(replace(reply, finished="length"), alone("a4", 0, sources()[1]))
        for i in (0, 2):
            compare(tickets[i].result(0), alone(tickets[i].request.adapter, 0, sources()[1]))
        assert served.stats().running == served.stats().waiting == 0


def test_the_queue_is_bounded_and_no_adapter_takes_all_of_it() -> None:
    served = engine(queue=6)
    request = ServeRequest("a9", sources()[0], 2)
    for _ in range(3):
        served.submit(request)
    with pytest.raises(QueueFull, match="limit of one adapter"):
        served.submit(request)
    for name in ("a1", "a2", "a3"):
        served.submit(replace(request, adapter=name))
    with pytest.raises(QueueFull, match="6 requests are waiting"):
        served.submit(replace(request, adapter="a4"))
    run(served)
    assert served.submit(request) is not None


def test_adapters_take_turns_however_much_each_has_asked() -> None:
    served, order = engine(slots=1), list[str]()

    def submit(name: str) -> None:
        def listener(event: object) -> None:
            if isinstance(event, Reply):
                order.append(name)

        served.submit(ServeRequest(name, sources()[0], 1), listener)

    for name in ["a9"] * 5 + ["a10"] * 2 + ["a11"]:
        submit(name)
    run(served)
    assert order == ["a9", "a10", "a11", "a9", "a10", "a9", "a9", "a9"]


def test_a_long_prompt_stops_neither_running_rows_nor_short_prompts() -> None:
    assert shared_out([0, 500, 0, 12], 16) == [0, 8, 0, 8]
    assert shared_out([500, 0, 3], 16) == [13, 0, 3]
    assert shared_out([0, 0], 16) == [0, 0]
    assert shared_out([5, 5, 5], 100) == [5, 5, 5]
    served, arrived = engine(prefill_tokens=4), list[int]()
    steps = 0
    served.submit(ServeRequest("a9", sources()[0], 8), lambda event: arrived.append(steps))
    while not arrived:
        served.step()
        steps += 1
    served.submit(ServeRequest("a1", sources()[1], 2))
    while served.step():
        steps += 1
    pieces = arrived[:-1]
    assert all(b - a <= 2 for a, b in pairwise(pieces)), pieces


def test_a_failing_listener_ends_its_own_reply_only(caplog: pytest.LogCaptureFixture) -> None:
    def listener(_event: object) -> None:
        raise RuntimeError("nobody hears this")

    served = engine()
    lost = served.submit(ServeRequest("a9", sources()[0], 8), listener)
    kept = served.submit(ServeRequest("a10", sources()[0], 8))
    run(served)
    assert lost.result(0).finished in ("cancelled", "end", "length")
    assert compare(kept.result(0), alone("a10", 0, sources()[0]))
    assert "a listener failed" in caplog.text


def test_a_step_that_fails_loses_its_rows_and_not_the_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = engine()
    lost = served.submit(ServeRequest("a9", sources()[0], 8))
    served.step()
    with monkeypatch.context() as patch:
        patch.setattr(served._slots, "feed", lambda *_: 1 / 0)
        served.step()
    with pytest.raises(Failed, match="ZeroDivisionError"):
        lost.result(0)
    ticket = served.submit(ServeRequest("a9", sources()[0], 8))
    run(served)
    assert compare(ticket.result(0), alone("a9", 0, sources()[0]))
    assert "a step failed" in caplog.text


def test_a_row_that_makes_a_step_fail_ends_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = engine()
    lost, kept = (served.submit(ServeRequest(name, sources()[0], 8)) for name in ("a9", "a10"))
    served.step()
    feed = served._slots.feed

    def failing(rows: Any, *rest: Any) -> Any:
        if any(row.owner is served.library.get("a9").starts[0].owners[0] for row in rows):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return feed(rows, *rest)

    monkeypatch.setattr(served._slots, "feed", failing)
    run(served)
    with pytest.raises(Failed, match="mat1 and mat2"):
        lost.result(0)
    assert compare(kept.result(0), alone("a10", 0, sources()[0]))
    assert served.failure is None and "a row of a9 failed" in caplog.text


def test_it_knows_when_the_base_itself_fails_and_when_it_runs_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = engine()

    def dead(*_: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with monkeypatch.context() as patch:
        patch.setattr(served._slots, "feed", dead)
        patch.setattr(served._slots, "check_base", dead)
        lost = served.submit(ServeRequest("a9", sources()[0], 8))
        run(served)
    assert lost.done and "device-side assert" in str(served.failure)
    served.submit(ServeRequest("a9", sources()[0], 2))
    run(served)
    assert served.failure is None


def test_scores_that_are_no_numbers_fail_their_row_and_leave_the_slot_clean() -> None:
    served, name = engine(slots=2), "a9"
    sick = served.library.get(name)
    assert sick is not None
    served.library.prepare_one()
    whole = ServeRequest(name, sources()[0], 8)
    first = served.submit(whole)
    served.step()
    edit = next(iter(sick.edits.linear.values()))
    kept = edit.up.clone()
    edit.up.fill_(float("nan"))
    other = served.submit(replace(whole, adapter="a10"))
    run(served)
    edit.up.copy_(kept)
    with pytest.raises(Failed, match="not numbers"):
        first.result(0)
    assert compare(other.result(0), alone("a10", 0, sources()[0]))
    again = [served.submit(replace(whole, adapter=n)) for n in ("a9", "a11")]
    run(served)
    for ticket in again:
        compare(ticket.result(0), alone(ticket.request.adapter, 0, sources()[0]))


def test_in_threads_it_serves_drains_and_then_takes_nothing() -> None:
    served = engine()
    served.start()
    replies: dict[tuple[int, str], tuple[str, Reply]] = {}

    def client(number: int) -> None:
        for name in NAMES[number::3]:
            ticket = served.submit(ServeRequest(name, sources()[number], world.LONGEST))
            text = "".join(piece.text for piece in ticket)
            replies[number, name] = text, ticket.result(10)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = served.submit(ServeRequest("a9", sources()[0], world.LONGEST))
    served.stop()
    assert last.result(0).finished in ("end", "length")
    assert len(replies) == len(NAMES)
    for (number, name), (text, reply) in replies.items():
        assert text == reply.text
        compare(reply, alone(name, 0, sources()[number]))
    with pytest.raises(Closed):
        served.submit(ServeRequest("a9", sources()[0], 4))


def test_stopped_without_draining_everything_ends_as_cancelled() -> None:
    served = engine(slots=1)
    served.start()
    tickets = [served.submit(ServeRequest("a9", sources()[0], 40)) for _ in range(4)]
    while not served.stats().running:
        time.sleep(0.001)
    served.stop(drain=False)
    assert {t.result(0).finished for t in tickets} <= {"cancelled", "end", "length"}
    assert tickets[-1].result(0).finished == "cancelled"
    assert all(isinstance(piece, Piece) for piece in tickets[0])


def test_an_empty_library_serves_nothing() -> None:
    served = Engine(laws.model("gpt2"), Library(laws.model("gpt2")), Limits(slots=1, capacity=8))
    with pytest.raises(UnknownAdapter, match="among the 0 known"):
        served.submit(ServeRequest("a9", "cat"))
    assert served.step() is False
