"""Adapters over HTTP: listed, loaded, replaced and unloaded; what must not get in does not."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from peftlab.errors import InputError
from peftlab.frozen.model import FrozenLM
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.serve import Library
from peftlab.serve.http import Settings
from peftlab.serve.http.guard import _place
from tests.laws import world as laws
from tests.models import tiny
from tests.serve.http.server import Server, serving
from tests.serve.http.test_completions import is_alone
from tests.serve.world import LONGEST, adaptation, alone, sources


def stored(name: str, variant: int = 0, family: str = "gpt2") -> Adaptation:
    return replace(adaptation(name, variant, family), base=base_of(laws.model(family)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "adapters"
    for name in ("a2", "a9", "a10"):
        stored(name).save(made / name)
    stored("a9", 1).save(made / "a9-new")
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with serving(Library(laws.model("gpt2"), folder)) as running:
        yield running


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as made:
        yield made


def error(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["error"]["message"])


def test_adapters_are_listed_and_loaded(http: httpx.Client, server: Server) -> None:
    listed = http.get("/v1/adapters").json()["data"]
    assert [it["name"] for it in listed] == ["a10", "a2", "a9", "a9-new"]
    assert listed[2] == {
        "name": "a9", "object": "adapter", "loaded": False, "method": None, "version": None,
        "bytes": None,
    }  # fmt: skip
    made = http.put("/v1/adapters/a9").json()
    assert made["loaded"] and made["method"] == "lora" and made["version"] == 1
    assert made["bytes"] > 0 and http.get("/v1/adapters/a9").json() == made
    with server.openai() as client:
        listed = client.completions.create(model="a9", prompt=sources()[0], max_tokens=LONGEST)
        is_alone("a9", sources()[0], listed.choices[0])


def test_replaced_while_it_answers(http: httpx.Client, server: Server) -> None:
    with server.openai() as client:
        asked: Any = {"model": "a9", "prompt": sources()[0], "max_tokens": LONGEST}
        stream = client.completions.create(**asked, stream=True)
        begun = [next(stream)]
        assert http.put("/v1/adapters/a9", json={"folder": "a9-new"}).json()["version"] == 2
        old = begun + list(stream)
        assert "".join(it.choices[0].text for it in old) == alone("a9", 0, sources()[0]).text
        new = client.completions.create(**asked).choices[0].text
        assert new == alone("a9", 1, sources()[0]).text != alone("a9", 0, sources()[0]).text


def test_unloaded_and_found_again(http: httpx.Client, folder: Path) -> None:
    gone = http.delete("/v1/adapters/a9").json()
    assert gone == {"name": "a9", "object": "adapter", "deleted": True}
    assert "no adapter 'a9'" in error(http.delete("/v1/adapters/a9"), 404)
    assert "no adapter 'a9'" in error(http.get("/v1/adapters/a9"), 404)
    asked = {"model": "a9", "prompt": "cat"}
    assert "no adapter 'a9'" in error(http.post("/v1/completions", json=asked), 404)
    stored("a4").save(folder / "later")
    names = [it["name"] for it in http.post("/v1/adapters/rescan").json()["data"]]
    assert names == ["a10", "a2", "a9", "a9-new", "later"]
    assert http.put("/v1/adapters/a9").status_code == 200


def test_an_adapter_of_another_base_is_refused_with_all_that_differs(
    http: httpx.Client, folder: Path, server: Server
) -> None:
    stored("a9", family="llama").save(folder / "foreign")
    http.put("/v1/adapters/a9")
    said = error(http.put("/v1/adapters/a9", json={"folder": "foreign"}), 400)
    for part in ("another base: made for llama", "family is gpt2, not llama", "kv_heads is 4, not"):
        assert part in said
    assert http.get("/v1/adapters/a9").json()["version"] == 1, "the old one stays"
    http.post("/v1/adapters/rescan")
    with server.openai() as client, pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(model="foreign", prompt="cat")
    assert refusal.value.code == "adapter_refused" and "kv_heads is 4" in refusal.value.message


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        ("damaged", "is damaged"), ("pickled", "pickled files are never loaded"),
        ("bin", "can run any code, and is never loaded"), ("settings", "cannot be served"),
        ("nan", "not a number: "), ("json", "is damaged"), ("deep", ""),
    ],
)  # fmt: skip
def test_broken_folders_are_refused(
    http: httpx.Client, folder: Path, break_it: str, words: str
) -> None:
    bad = folder / "bad"
    shutil.copytree(folder / "a9", bad)
    tensors, described = bad / "adaptation.safetensors", bad / "adaptation.json"
    if break_it == "damaged":
        tensors.write_bytes(tensors.read_bytes()[:-9])
    elif break_it == "pickled":
        tensors.write_bytes(pickle.dumps({"never": "loaded"}))
    elif break_it == "bin":
        shutil.rmtree(bad)
        bad.mkdir()
        (bad / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
        (bad / "adapter_model.bin").write_bytes(pickle.dumps({"never": "loaded"}))
    elif break_it == "settings":
        values = json.loads(described.read_text())
        described.write_text(json.dumps(values | {"settings": {"rank": "many"}}))
    elif break_it == "json":
        described.write_bytes(b"\xff\xfe")
    elif break_it == "deep":
        described.write_text("[" * 100_000)
    else:
        made = stored("a9")
        state = {name: tensor * float("nan") for name, tensor in made.state.tensors.items()}
        replace(made, state=replace(made.state, tensors=state)).save(bad)
    said = error(http.put("/v1/adapters/bad"), 400)
    assert words in said
    assert http.put("/v1/adapters/a9").status_code == 200


@pytest.mark.parametrize(
    "name", ["..", "../a9", "a9/../a10", "/etc/passwd", "", ".", "a\\b", "x" * 129]
)
def test_names_cannot_leave_the_folder(http: httpx.Client, folder: Path, name: str) -> None:
    stored("a9").save(folder.parent / "outside")
    said = error(http.put("/v1/adapters/new", json={"folder": name}), 400 if name else 404)
    assert "no adapter's name" in said or not name
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())
    response = http.put(f"/v1/adapters/{quoted}")
    assert response.status_code in (400, 404, 405), response.text


def test_raw_paths_and_links_cannot_leave_it_either(
    http: httpx.Client, folder: Path, server: Server
) -> None:
    stored("a9").save(folder.parent / "outside")
    (folder / "link").symlink_to(folder.parent / "outside")
    assert "leads out" in error(http.put("/v1/adapters/link"), 400)
    assert "leads out" in error(http.put("/v1/adapters/x", json={"folder": "link"}), 400)
    http.post("/v1/adapters/rescan")
    assert "link" not in [it["name"] for it in http.get("/v1/adapters").json()["data"]]
    for path in ("/v1/adapters/../outside", "/v1/adapters/..%2foutside", "/playground/../app.py"):
        with server.connect() as connection:
            connection.sendall(f"PUT {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            assert connection.recv(12) in (b"HTTP/1.1 404", b"HTTP/1.1 400", b"HTTP/1.1 405")


def test_the_base_is_no_adapter(http: httpx.Client) -> None:
    for response in (http.put("/v1/adapters/gpt2"), http.delete("/v1/adapters/gpt2")):
        assert "is the base itself" in error(response, 400)


def test_an_adapter_may_not_have_the_bases_name(folder: Path) -> None:
    library = Library(laws.model("gpt2"), folder)
    refused = pytest.raises(InputError, match="give the base another one")
    with refused, serving(library, Settings(base="a9")):
        pass
    with serving(library, Settings(base="plain")) as running, running.openai() as client:
        assert client.models.list().data[0].id == "plain"
    stored("a4").save(folder / "gpt2")
    library = Library(laws.model("gpt2"), folder)
    with serving(library) as running, running.openai() as client:
        names = [it.id for it in client.models.list().data]
        assert names[0] == "gpt2-base" and "gpt2" in names[1:]


def test_a_base_without_an_end_is_refused_before_anything_starts() -> None:
    endless = copy.deepcopy(laws.tokenizer())
    endless.eos_token = None
    library = Library(FrozenLM(tiny("gpt2"), endless, "endless"))
    with pytest.raises(InputError, match="no end-of-sequence token"), serving(library):
        pass


def test_without_a_folder_nothing_can_be_loaded() -> None:
    with serving() as running, running.http() as http:
        assert "no folder of adapters" in error(http.put("/v1/adapters/a9"), 400)


def test_only_an_admin_key_manages(folder: Path) -> None:
    settings = Settings(api_keys=("user", "näme"), admin_keys=("admin",))
    assert "user" not in repr(settings)
    with serving(Library(laws.model("gpt2"), folder), settings) as running:
        asked = {"model": "a9", "prompt": "cat", "max_tokens": 1}
        for key in (None, "wrong", "user2", "use"):
            with running.http(key) as http:
                assert http.get("/health").status_code == 200
                for path in ("/v1/models", "/v1/adapters", "/metrics", "/openapi.json"):
                    response = http.get(path)
                    assert "API key is needed" in error(response, 401)
                    assert response.headers["www-authenticate"] == "Bearer"
                error(http.post("/v1/completions", json=asked), 401)
                error(http.put("/v1/adapters/a9"), 401)
                error(http.delete("/v1/adapters/a9"), 401)
        with running.http("user") as http:
            assert http.post("/v1/completions", json=asked).status_code == 200
            assert "may not manage" in error(http.put("/v1/adapters/a9"), 403)
            assert http.get("/v1/adapters").status_code == 200
        with running.http("admin") as http:
            assert http.put("/v1/adapters/a9").status_code == 200
            assert http.post("/v1/completions", json=asked).status_code == 200
        with running.openai("user") as client:
            assert client.models.list().data


@pytest.mark.parametrize("name", ["api_keys", "admin_keys"])
@pytest.mark.parametrize("key", ["", " ", "\t", "secret\n", "se\x00cret", " secret"])
def test_keys_that_would_open_or_shut_the_server_are_refused(name: str, key: str) -> None:
    for make in (Settings, Settings.of):
        with pytest.raises(InputError, match=r"an API key (is|holds)") as refused:
            make(**{name: ("good", key)})
        assert "secret" not in str(refused.value).replace("a secret was", "")
    with pytest.raises(InputError, match="name of a host is empty"):
        Settings(hosts=(" ",))


def test_no_key_is_never_a_right_one() -> None:
    assert _place("", ["", "x"]) is None
    with serving(settings=Settings(api_keys=("right",))) as running:
        for header in ("X-a: b", "Bearer", "Bearer ", "bearer   ", "Basic abc", "Bearer x"):
            line = header if ":" in header else f"Authorization: {header}"
            with running.connect() as connection:
                connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode())
                assert connection.recv(12) == b"HTTP/1.1 401", header


def test_an_admin_key_alone_leaves_the_rest_open(folder: Path) -> None:
    library = Library(laws.model("gpt2"), folder)
    with serving(library, Settings(admin_keys=("admin",))) as running:
        with running.http() as http:
            assert http.get("/v1/models").status_code == 200
            error(http.delete("/v1/adapters/a9"), 401)
        with running.http("admin") as http:
            assert http.delete("/v1/adapters/a9").status_code == 200


def test_nothing_of_a_body_is_read_without_a_key(folder: Path) -> None:
    library = Library(laws.model("gpt2"), folder)
    sent = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    settings = Settings(api_keys=("user",))
    with serving(library, settings) as running, running.connect() as connection:
        connection.sendall(sent)
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_called_by_another_name_it_does_not_answer() -> None:
    """A web page that points a name of its own at the loopback address gets nothing."""
    settings = Settings(hosts=("127.0.0.1", "localhost"))
    with serving(settings=settings) as running, running.http() as http:
        assert http.get("/v1/models").status_code == 200
        assert http.get("/v1/models", headers={"Host": "localhost:80"}).status_code == 200
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
            error(http.get("/v1/models", headers={"Host": host}), 421)


def test_a_form_of_another_site_changes_nothing(http: httpx.Client) -> None:
    """What a page can send to another site without asking it first carries no JSON."""
    asked = json.dumps({"model": "a9", "prompt": "cat", "max_tokens": 1})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        response = http.post("/v1/completions", content=asked, headers={"Content-Type": kind})
        assert "Content-Type: application/json" in error(response, 400)
    assert "access-control-allow-origin" not in http.get("/v1/models").headers
