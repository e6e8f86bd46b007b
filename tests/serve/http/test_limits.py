"""What is too much or too late; clients that leave; an end that finishes what was begun."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import psutil
import pytest

from peftlab.serve.http import Settings
from tests.serve.http.server import Server, held, serving, until
from tests.serve.http.test_adapters import error
from tests.serve.http.test_completions import is_alone
from tests.serve.world import LONGEST, sources

ASKED: dict[str, Any] = {"model": "a9", "prompt": sources()[0], "max_tokens": LONGEST}


def ended(server: Server, how: str) -> int:
    finished = server.engine.stats().finished
    return sum(count for (_, said), count in finished.items() if said == how)


def idle(server: Server) -> bool:
    return server.requests == (0, 0)


def stands(connection: socket.socket) -> bool:
    """Whether the server's end of a connection, in this process too, has not been given up."""
    own = connection.getsockname()[1]
    ends = psutil.Process().net_connections("tcp")
    return any(it.raddr and it.raddr.port == own and it.status == "ESTABLISHED" for it in ends)


def seen_gone(server: Server) -> bool:
    """Whether the server knows that all its clients have left; the engine hears it at a step."""
    engine = server.engine
    return all(one.ticket.cancelled for one in (*engine._rows, *engine._queue))


def answers_well(server: Server) -> None:
    with server.openai() as client:
        is_alone("a9", sources()[0], client.completions.create(**ASKED).choices[0])


def post(path: str, length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    ).encode()


def test_bodies_are_bounded_in_size_and_time() -> None:
    settings = Settings(body_bytes=500, body_seconds=0.3)
    with serving(settings=settings) as server, server.http() as http:
        large = json.dumps(ASKED | {"prompt": "cat " * 1000})
        assert "larger than 500 bytes" in error(http.post("/v1/completions", content=large), 413)

        def chunks() -> Iterator[bytes]:
            for _ in range(20):
                yield b" " * 100

        assert "larger than 500" in error(http.post("/v1/completions", content=chunks()), 413)
        with server.connect() as connection:
            connection.sendall(post("/v1/completions", 400) + b"{")
            assert connection.recv(12) == b"HTTP/1.1 408"
        with server.connect() as connection:
            connection.sendall(post("/v1/completions", 400) + b"{")
        answers_well(server)


def test_a_full_queue_is_429_and_says_when_to_try_again() -> None:
    with serving(slots=1, queue=2, queue_share=2) as server, ThreadPoolExecutor() as pool:
        with server.http() as http, server.openai() as client:
            with held(server.engine):
                taken = [pool.submit(http.post, "/v1/completions", json=ASKED)]
                until(lambda: server.requests == (1, 0))
                taken += [pool.submit(http.post, "/v1/completions", json=ASKED) for _ in "ab"]
                until(lambda: server.requests == (1, 2))
                for extra in ({}, {"stream": True}, {"n": 2}):
                    response = http.post("/v1/completions", json=ASKED | extra)
                    assert "which is the limit" in error(response, 429)
                    assert 1 <= int(response.headers["retry-after"]) <= 60
                with pytest.raises(openai.RateLimitError):
                    client.completions.create(**ASKED)
            for future in taken:
                is_alone("a9", sources()[0], _choice(future.result(20)))
        assert idle(server)


def _choice(response: httpx.Response) -> Any:
    return SimpleNamespace(**response.json()["choices"][0])


def test_a_batch_that_does_not_fit_into_the_queue_leaves_nothing_in_it() -> None:
    with serving(slots=1, queue=4, queue_share=4) as server, server.http() as http:
        response = http.post("/v1/completions", json=ASKED | {"n": 30})
        error(response, 429)
        until(lambda: idle(server))
        answers_well(server)


def test_requests_under_way_are_bounded_and_health_is_not() -> None:
    with (
        serving(settings=Settings(requests=2)) as server,
        ThreadPoolExecutor() as pool,
        server.http() as http,
    ):
        with held(server.engine):
            taken = [pool.submit(http.post, "/v1/completions", json=ASKED) for _ in range(2)]
            until(lambda: sum(http.get("/health").json()[k] for k in ("running", "waiting")) == 2)
            response = http.post("/v1/completions", json=ASKED)
            assert "2 requests are under way" in error(response, 429)
            assert response.headers["retry-after"]
        assert [it.result(20).status_code for it in taken] == [200, 200]
        assert http.post("/v1/completions", json=ASKED).status_code == 200


def test_prompts_are_bounded() -> None:
    with serving(prompt_tokens=9) as server, server.http() as http:
        response = http.post("/v1/completions", json=ASKED | {"prompt": "cat " * 20})
        said = error(response, 400)
        assert "there is room for 9: the longest prompt that is taken here" in said
        assert response.json()["error"]["code"] == "context_length_exceeded"


def test_long_prompts_stand_in_a_line_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server, server.http() as http, ThreadPoolExecutor(8) as pool:
        submit, over = server.engine.submit, threading.Event()
        inside: list[str] = []
        most: list[int] = []

        def slow(request: Any, *rest: Any, **more: Any) -> Any:
            text = request.source.source
            if len(text) > 1000:
                inside.append(text)
                most.append(len(inside))
                over.wait(20)
                inside.remove(text)
            return submit(request, *rest, **more)

        monkeypatch.setattr(server.engine, "submit", slow)
        long = ASKED | {"prompt": "cat " * 10_000}
        taken = [pool.submit(http.post, "/v1/completions", json=long) for _ in range(8)]
        until(lambda: bool(inside))
        with server.http() as other:
            assert other.post("/v1/completions", json=ASKED).status_code == 200
        over.set()
        for future in taken:
            assert "and there is room for" in error(future.result(20), 400)
        assert most == [1] * 8


def test_what_takes_too_long_is_ended_and_says_so() -> None:
    with serving(settings=Settings(seconds=0.4)) as server, server.http() as http:
        with server.openai() as client, held(server.engine) as let:
            for extra in ({}, {"stream": True}):
                response = http.post("/v1/completions", json=ASKED | extra)
                assert "no whole reply within 0.4 s" in error(response, 504)
            let(4)  # one of them for a step that was begun before
            stream = client.completions.create(**ASKED, stream=True)
            assert next(stream).choices[0].text
            with pytest.raises(openai.APIError, match=r"no whole reply within 0\.4 s"):
                list(stream)
        until(lambda: idle(server))
        assert ended(server, "cancelled") == 3
        answers_well(server)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_request(stream: bool) -> None:
    with serving(slots=1) as server, server.http() as http, held(server.engine) as let:
        for place in ("running", "waiting"):
            before = getattr(server.engine.stats(), place)
            with server.connect() as connection:
                body = json.dumps(ASKED | {"stream": stream}).encode()
                connection.sendall(post("/v1/completions", len(body)) + body)
                until(lambda: getattr(server.engine.stats(), place) == before + 1)  # noqa: B023
                if place == "running":
                    kept = connection.dup()
        kept.close()
        until(lambda: seen_gone(server))
        let(3)
        until(lambda: idle(server))
        assert ended(server, "cancelled") == 2
        assert http.get("/health").json()["running"] == 0


def test_a_client_that_leaves_in_the_midst_of_a_stream() -> None:
    with serving() as server, server.openai() as client:
        with held(server.engine) as let:
            let(3)
            stream = client.completions.create(**ASKED, stream=True)
            next(stream)
            stream.close()
            until(lambda: seen_gone(server))
            until(lambda: ended(server, "cancelled") == 1 or let(1) is not None)
        answers_well(server)


def test_a_client_that_stops_reading_is_cut_off_and_nobody_else_is() -> None:
    """Its row ends once its bounded buffer is full, and its connection after a while."""
    settings = Settings(unread_pieces=64, stuck_seconds=1, replies=16)
    with serving(settings=settings, send_buffer=4096, slots=8) as server:
        connection = server.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        asked = ASKED | {"stream": True, "n": 8, "max_tokens": 70, "logprobs": 20, "min_tokens": 70}
        body = json.dumps(asked).encode()
        connection.sendall(post("/v1/completions", len(body)) + body)
        until(lambda: ended(server, "cancelled") > 0)
        answers_well(server)
        until(lambda: idle(server))
        until(lambda: not stands(connection))
        connection.settimeout(10)
        received = b""
        with connection:
            try:
                while part := connection.recv(65536):
                    received += part
            except ConnectionError:
                pass
        assert b"[DONE]" not in received
        assert b"does not read" not in received, "it would hear this on a connection that stands"


def test_told_to_stop_it_finishes_what_it_began() -> None:
    with serving(slots=1) as server, ThreadPoolExecutor() as pool, server.http() as http:
        with held(server.engine) as let:
            taken = [pool.submit(http.post, "/v1/completions", json=ASKED) for _ in range(3)]
            until(lambda: server.requests == (1, 2))
            stopping = threading.Thread(target=server.engine.stop)
            stopping.start()
            until(lambda: not server.engine.alive)
            response = http.post("/v1/completions", json=ASKED)
            assert "stopping" in error(response, 503) and response.headers["retry-after"]
            error(http.get("/health"), 503)
            let(1)
        stopping.join(20)
        for future in taken:
            is_alone("a9", sources()[0], _choice(future.result(20)))
        server.engine.start()


def test_the_server_ends_with_its_streams_finished() -> None:
    with serving() as server:
        client = server.openai()
        stream = client.completions.create(**ASKED, stream=True)
        begun = [next(stream)]
        reading = threading.Thread(target=lambda: begun.extend(stream))
        reading.start()
    reading.join(20)
    last = begun[-1].choices[0]
    last.text = "".join(it.choices[0].text for it in begun)
    is_alone("a9", sources()[0], last)
    client.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "/health")
