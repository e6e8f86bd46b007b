"""The clients that people have get the engine's replies: whole, in pieces, and as objects."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from peftlab.frozen.model import FrozenLM
from peftlab.methods.hard_prompt import unadapted
from peftlab.serve import Chat, Library, ServeRequest
from tests.models import tiny
from tests.serve.http.server import serving
from tests.test_choices import base
from tests.wide.conftest import PYTHON

ASK = Path(__file__).parent / "clients.py"
CHAT = (
    "{% for it in messages %}{{ it.role }}: {{ it.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
PROMPT, TOKENS = "Is the food good?", 12


def test_all_clients_get_the_same() -> None:
    tokenizer = base(CHAT).tokenizer
    long = tiny("llama", vocab_size=len(tokenizer), max_position_embeddings=256)
    model = FrozenLM(long, tokenizer, "talks")
    library = Library(model)
    library.load("served", unadapted(model))
    while library.load_one():
        pass
    with serving(library, capacity=200) as server:
        source = Chat((("user", PROMPT),))
        ticket = server.engine.submit(ServeRequest("served", source, TOKENS))
        expected = ticket.result(20).text
        asked = {
            "url": f"{server.url}/v1", "model": "served", "prompt": PROMPT, "tokens": TOKENS
        }  # fmt: skip
        done = subprocess.run(
            [PYTHON, str(ASK)], input=json.dumps(asked), capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found) == {"openai", "langchain", "litellm"}
    for client, answers in found.items():
        assert answers["whole"] == expected, client
        assert "".join(answers["pieces"]) == expected, client
        assert answers["object"]["colour"] in ("red", "blue"), client
        assert 0 <= answers["object"]["count"] <= 9, client
