"""Whatever is sent: the right status in OpenAI's shape, and the others are served on."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest

from tests.serve.http.server import Server
from tests.serve.http.test_completions import is_alone
from tests.serve.world import LONGEST, sources

JSON = {"Content-Type": "application/json"}


def body(**changes: Any) -> bytes:
    return json.dumps({"model": "a9", "prompt": "the cat", "max_tokens": 4} | changes).encode()


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"{", "no JSON: .* at character 1"),
        (b"", "a JSON object was expected"),
        (b"[]", "a JSON object was expected"),
        (b"null", "a JSON object was expected"),
        (b'"text"', "a JSON object was expected"),
        (b"\xff\xfe\x00", "the body"),
        (b'{"model": "a9", "prompt": "\xc3("}', "the body cannot be read: .*utf-8"),
        (body(prompt="\ud800"), "half of a character"),
        (body(**{"\udfff": 1}), "half of a character"),
        (body(stop="\ud800"), "half of a character"),
        (b'{"model":"a9","prompt":"x","seed":' + b"9" * 5000 + b"}", "the body cannot be read"),
        (b"[" * 100_000, "the body cannot be read: .*recursion"),
        (body(temperature=float("nan")), "temperature"),
        (body(temperature=float("inf")), "temperature"),
        (b'{"model":"a9","prompt":"x","temperature":1e999}', "temperature"),
        (body(temperature=-1), "greater than or equal to 0"),
        (body(temperature=1e-300), "0, or 0.01 to 2"),
        (body(temperature=1e300), "less than or equal to 2"),
        (body(temperature="1"), "temperature: .*number, got '1'"),
        (body(top_p=0), "top_p: .*greater than 0"),
        (body(top_p=1.5), "top_p"),
        (body(top_k=-1), "top_k"),
        (body(top_k=10**30), "top_k"),
        (body(max_tokens=0), "max_tokens"),
        (body(max_tokens=1e3), "max_tokens"),
        (body(max_tokens=True), "max_tokens: .*integer, got True"),
        (body(max_tokens=2000), "max_tokens is 2,000; at most 1,024"),
        (body(max_tokens=10**18), "max_tokens"),
        (body(max_tokens=89), "there is room for 1:"),
        (body(min_tokens=5), "min_tokens is 5; at most 4"),
        (body(n=0), "n: "),
        (body(n=65), "65 replies are asked for at once"),
        (body(prompt=["x"] * 33, n=2), "66 replies"),
        (body(seed=2**63), "seed"),
        (body(seed=1.5), "seed"),
        (body(logprobs=21), "logprobs"),
        (body(logprobs=True), "logprobs"),
        (body(stop=["x"] * 17), "at most 16"),
        (body(stop=""), "none of them empty"),
        (body(stop=[1]), "stop"),
        (body(stream="yes"), "stream"),
        (body(stream_options={"include_usage": True}), "allowed where stream is true"),
        (body(stream=True, stream_options={"include_usge": True}), 'Did you mean "include_usage"'),
        (body(stream=True, stream_options=7), "stream_options"),
        (body(prompt=""), "prompt is empty"),
        (body(prompt=" \n"), "prompt is empty"),
        (body(prompt=None), "prompt: .*got None"),
        (body(prompt=7), "a list of such lists was expected, got 7"),
        (body(prompt={"text": "x"}), "a list of such lists"),
        (body(prompt=[]), "a list of such lists"),
        (body(prompt=["x", 7]), "a list of such lists"),
        (body(prompt=[True]), "a list of such lists"),
        (body(prompt=[[]]), "a list of such lists"),
        (body(prompt=[-1]), "token 0 of the prompt is -1; 0 to 119"),
        (body(prompt=[10**20]), "token 0 of the prompt"),
        (body(prompt="cat " * 300), r"has 30\d tokens, and there is room for 86"),
        (body(prompt="h" * 300_000), "there is room for 86"),
        (body(fields={"a": 1}), r"fields\.a"),
        (body(model=""), "model"),
        (body(model=7), "model"),
        (body(echo=True, stream=True), "echo is not streamed"),
        (body(max_tokens=0), "at least 1, or echo, was expected"),
        (body(stop_token_ids=[-1]), r"stop_token_ids\.0"),
        (body(min_p=2), "min_p"),
        (body(repetition_penalty=0), "repetition_penalty"),
        (body(best_of=3), "best_of is not served"),
        (body(suffix="x"), "suffix is not served"),
        (body(logit_bias={"5": 1}), "logit_bias is not served"),
        (body(frequency_penalty=2.5), "frequency_penalty"),
        (body(max_token=4), 'argument supplied: .*Did you mean "max_tokens"'),
        (json.dumps({"prompt": "x"}).encode(), "model is missing"),
        (json.dumps({"model": "a9"}).encode(), "prompt is missing"),
    ],
)
def test_bad_requests(server: Server, sent: bytes, words: str) -> None:
    with server.http() as http:
        response = http.post("/v1/completions", content=sent, headers=JSON)
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert re.search(words, error["message"]), error["message"]


def test_unknown_adapters_are_told_the_nearest_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        client.completions.create(model="a99", prompt="cat")
    assert refusal.value.code == "model_not_found" and refusal.value.param == "model"
    assert 'Did you mean "a9"?' in refusal.value.message
    for name in ("../a9", "a9/../a9", "x" * 10_000, "\x00"):
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model=name, prompt="cat")


def test_a_stream_refuses_with_a_status_of_its_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="a99", prompt="cat", stream=True)
    with pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(model="a9", prompt="cat " * 300, stream=True)
    assert refusal.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404), ("GET", "/v1/completions", 405), ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/a99", 404), ("GET", "/v1/models/%00", 404),
        ("GET", "/v1/adapters/a99", 404), ("GET", "/v1/models/%ff%fe", 404),
    ],
)  # fmt: skip
def test_other_paths_and_methods(server: Server, method: str, path: str, status: int) -> None:
    with server.http() as http:
        response = http.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_one_bad_prompt_of_many_refuses_all_and_leaves_nothing_behind(server: Server) -> None:
    with server.openai() as client:
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="a9", prompt=["cat", "cat " * 300], max_tokens=4)
        completion = client.completions.create(model="a9", prompt=sources()[0], max_tokens=LONGEST)
    is_alone("a9", sources()[0], completion.choices[0])
    stats = server.engine.stats()
    assert stats.running == stats.waiting == 0


def test_what_is_no_http_is_refused_and_the_server_stays(server: Server) -> None:
    for sent in (b"\x16\x03\x01\x00\xff", b"NONSENSE\r\n\r\n", b"A" * 200_000 + b"\r\n\r\n"):
        with server.connect() as connection:
            connection.sendall(sent)
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    with server.http() as http:
        assert http.get("/health").json()["status"] == "ok"
