"""`peftlab serve` as a process: it starts, ends, dies and comes back."""

# ruff: noqa: F811 - pytest hands fixtures in under the names they are imported by
from __future__ import annotations

import io
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from peftlab.cli.app import run as command
from peftlab.frozen.model import FrozenLM
from peftlab.generation import Request, generate
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.serve.http.run import _log_printably
from peftlab.tasks import Task
from tests.comparison.conftest import base  # noqa: F401 - a fixture
from tests.export.made import random_state
from tests.verdict.test_outcome import kept

ASKED: dict[str, Any] = {"model": "mine", "prompt": "name : Place 7", "max_tokens": 60}
LONG: dict[str, Any] = ASKED | {"extra_body": {"min_tokens": 60}}


@pytest.fixture
def adapters(base: str, tmp_path: Path) -> Path:
    model = FrozenLM.load(base)
    made = Adaptation(
        parse_one("lora:rank=4,targets=all-linear"),
        random_state("lora:rank=4,targets=all-linear", model),
        Task.load("demo", limit=2).template,
        base_of(model),
    )
    made.save(tmp_path / "adapters" / "mine")
    return tmp_path / "adapters"


@contextmanager
def process(*arguments: str, port: int = 0, **environment: str) -> Iterator[Any]:
    """The running command and its address."""
    line = [sys.executable, "-m", "peftlab", "serve", "--port", str(port), *arguments]
    made = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **environment},
    )  # fmt: skip
    assert made.stdout is not None and made.stderr is not None
    try:
        url = ""
        while not url:
            said = made.stdout.readline()
            assert said, made.stderr.read()
            url = said.rpartition(" at ")[2].strip() if said.startswith("Serving") else ""
        yield made, url
    finally:
        if made.poll() is None:
            made.kill()
        made.wait(30)
        made.stdout.close()
        made.stderr.close()


def client(url: str, key: str = "-") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.mark.slow
def test_told_to_end_it_finishes_its_streams(base: str, adapters: Path) -> None:
    with (
        process("--model", base, "--adapters", str(adapters)) as (made, url),
        client(url) as asking,
    ):
        assert url.startswith("http://127.0.0.1:")
        whole = asking.completions.create(**LONG).choices[0].text
        stream = asking.completions.create(**LONG, stream=True)
        texts = [next(stream).choices[0].text]
        made.send_signal(signal.SIGTERM)
        texts += [chunk.choices[0].text for chunk in stream]
        assert "".join(texts) == whole
        assert made.wait(30) in (0, -signal.SIGTERM)
        assert "Traceback" not in made.stderr.read()


@pytest.mark.slow
def test_killed_under_load_it_comes_back_and_serves(base: str, adapters: Path) -> None:
    arguments = ("--model", base, "--adapters", str(adapters))
    with process(*arguments) as (made, url), client(url) as asking:
        expected = asking.completions.create(**ASKED).choices[0].text
        port, begun = int(url.rpartition(":")[2]), threading.Semaphore(0)

        def load() -> None:
            with suppress(openai.APIConnectionError, openai.APIError, Exception):
                while True:
                    for _ in asking.completions.create(**LONG, stream=True):
                        begun.release()

        clients = [threading.Thread(target=load) for _ in range(8)]
        for one in clients:
            one.start()
        for _ in range(40):
            begun.acquire(timeout=30)
        made.kill()
        assert made.wait(30) == -signal.SIGKILL
        for one in clients:
            one.join(60)
    with process(*arguments, port=port) as (_, url), client(url) as asking:
        assert int(url.rpartition(":")[2]) == port
        assert asking.completions.create(**ASKED).choices[0].text == expected


@pytest.mark.slow
def test_the_winners_of_a_comparison_are_served(base: str, adapters: Path, tmp_path: Path) -> None:
    model, out = FrozenLM.load(base), tmp_path / "out"
    facts = {"name": base, "fingerprint": model.fingerprint, "parameters": 1}
    for label, score in (("lora", 0.6), ("full", 0.5)):
        made = kept(out, label, score, model=facts)
        shutil.copytree(adapters / "mine", made.folder / "adapter")
    key = {"PEFTLAB_API_KEY": "secret"}
    with (
        process("--model", base, "--runs", str(out), **key) as (_, url),
        client(url, "secret") as asking,
    ):
        assert [it.id for it in asking.models.list().data] == [Path(base).name, "t"]
        completion = asking.completions.create(**ASKED | {"model": "t", "max_tokens": 8})
        asked = Request(Adaptation.load(adapters / "mine"), ASKED["prompt"], 8)
        assert completion.choices[0].text == generate(model, [asked])[0].text
        with client(url, "wrong") as other, pytest.raises(openai.AuthenticationError):
            other.models.list()


@pytest.mark.slow
def test_a_base_in_four_bits_is_served(
    base: str, adapters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    kept_so = ("--model", base, "--base-dtype", "nf4")
    asked = ("generate", "--adapter", str(adapters / "mine"), "--input", ASKED["prompt"])
    assert command([*asked, "--max-new-tokens", "8"]) == 0
    rounded_less = capsys.readouterr().out.strip()
    assert command([*asked, "--max-new-tokens", "8", *kept_so]) == 0
    expected = capsys.readouterr().out.strip()
    assert expected != rounded_less
    with process(*kept_so, "--adapters", str(adapters)) as (made, url), client(url) as asking:
        completion = asking.completions.create(**ASKED | {"max_tokens": 8})
        assert completion.choices[0].text == expected
        made.send_signal(signal.SIGTERM)
        (told,) = re.findall("Warning: .*", made.stderr.read())
        assert "in fp32 and is used on it in nf4" in told


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--log loud", "one of critical"),
        ("--base-dtype nf5", "--base-dtype is 'nf5'; one or more of fp32.*nf4"),
        ("--base-dtype fp32,nf4", "one was expected"),
        ("--max-body none", "--max-body is 'none'"),
        ("--max-time soon", "--max-time is 'soon'"),
        ("--max-body " + "9" * 400, "2GB or 500MB was expected"),
        ("--adapter-memory 0", "--adapter-memory is '0'"),
        ("--prompt-cache much", "--prompt-cache is .much.; 2GB or 500MB was expected"),
        ("--prompt-cache=-1", "--prompt-cache is .-1.; 2GB or 500MB was expected"),
        ("--max-time 99999h", "--max-time '99999h': at most 1,000,000 s"),
        ("--shutdown-time " + "9" * 400, "--shutdown-time is '999"),
        ("--max-requests 0", "--max-requests 0: 1 to 2,147,483,647 was expected"),
        ("--max-replies -1", "--max-replies -1: 1 to"),
        ("--max-queue 99999999999", "--max-queue 99999999999: 1 to"),
        ("--max-tokens 0", "--max-tokens 0: 1 to"),
        ("--prefill-tokens 0", "--prefill-tokens 0: 1 to"),
        ("--capacity 0", "--capacity 0: 1 to"),
        ("--slots 0", "--slots 0: 1 to"),
        ("--slots 99999999 --cache-memory 999999TB", "which the system does not give"),
        ("--max-prompt 0", "--max-prompt 0: 1 to"),
        ("--port -1", "cannot serve at port -1"),
        ("--host " + "a" * 300, "cannot serve at 'aaa"),
        ("--host=", "cannot serve at ''"),
        ("--allow-host=", "--allow-host '': a name"),
        ("--api-key=", r"a key of --api-key \(PEFTLAB_API_KEY\) is empty; a secret was expected"),
        ("--api-key=a --api-key=", "is empty"),
        ("--api-key=\x0b", "is blank"),
        ("--api-key=a\x07b", "holds control characters"),
        ("--admin-key=", r"a key of --admin-key \(PEFTLAB_ADMIN_KEY\) is empty"),
        ("--adapters nowhere", "nowhere is no folder"),
        ("--runs nowhere", "no folder nowhere"),
        ("--base-name ../x", "is no adapter's name"),
        ("--port 99999", "cannot serve at port 99999"),
        ("--host 256.1.1.1", "cannot serve at '256.1.1.1'"),
        ("--cache-memory 1KB", "the limit is 1,024"),
    ],
)
def test_bad_command_lines_are_one_clear_line(
    line: str, said: str, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["serve", *line.split(" "), "--model", base]) == 2
    shown = capsys.readouterr().err.strip()
    assert re.search(said, shown) and "\n" not in shown, shown


@pytest.mark.parametrize("variable", ["PEFTLAB_API_KEY", "PEFTLAB_ADMIN_KEY"])
@pytest.mark.parametrize("value", ["", " ", "\t "])
def test_an_empty_key_in_the_environment_does_not_open_the_server(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert command(["serve", "--model", "demo"]) == 2
    shown = capsys.readouterr().err.strip()
    assert re.search(f"{variable} in the environment is (empty|blank)", shown), shown
    assert "\n" not in shown


def test_what_is_logged_does_not_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, own = io.StringIO(), logging.getLogger("peftlab")
    monkeypatch.setattr(own, "handlers", [logging.StreamHandler(stream)])
    _log_printably()
    logging.getLogger("peftlab.serve").warning("called %s", "\x1b[31mred\x1b]0;title\x07")
    assert stream.getvalue() == "called \\x1b[31mred\\x1b]0;title\\x07\n"
