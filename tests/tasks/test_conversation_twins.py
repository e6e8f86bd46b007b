"""Spans of replies, held against templates that mark them: TRL's training templates.

TRL carries for many a stock template a twin with `{% generation %}` round what the assistant says,
of which transformers makes a mask. Read from the installed package.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.tasks import Example, Template
from peftlab.tasks.chat import _DATE, _held, frame
from peftlab.tasks.conversation import NotOneRow
from peftlab.tasks.conversation_files import each_reply
from peftlab.tasks.example import Encoded, Message
from tests.tasks.test_chat import PINNED
from tests.tasks.tokenizers_for_tests import CHAT, SMOL, byte_level

_FOUND = importlib.util.find_spec("trl")
pytestmark = pytest.mark.skipif(_FOUND is None, reason="trl is not installed: pip install trl")
_SPECIAL = re.compile(
    r"<\|[^|<>\s]+\|>|<｜[^｜\s]+｜>|<(?:start|end)_of_turn>|<\|[a-z_]+>|<[a-z_]+\|>"
)
_MARKED = "{% generation %}{{ m['content'] }}<|im_end|>\n{% endgeneration %}"


def _own_twin(chat: str) -> str:
    """ChatML and SmolLM2's, which have no twin there."""
    said = "{{ m['content'] }}<|im_end|>\n"
    assert said in chat
    marked = "{% if m['role'] == 'assistant' %}" + _MARKED + "{% else %}" + said + "{% endif %}"
    return chat.replace(said, marked)


# By template, what its twin marks beyond a reply and the token that ends it.
BEYOND = {
    "ChatML": r"\n",
    "SmolLM2": r"\n",
    "llama3": "",
    "qwen2_5": r"\n",
    "qwen3": r"\n|<think>\n\n</think>\n\n",
    "qwen3_instruct_2507": r"\n",
    "gemma": r"\n",
    "gemma3": r"\n",
    "phi3": r"\n<\|endoftext\|>|\n",
    "phi3_5": r"\n<\|endoftext\|>|\n",
    "cohere": "",
    "cohere2": r"<\|END_OF_TURN_TOKEN\|>",  # ours ends with the one before, END_RESPONSE
    "deepseekv3": "<｜Assistant｜>",
    "glm4moe": r"\n<think></think>|<\|user\|>",
    "lfm2": r"\n",
    "lfm2_v2": r"\n",
    "gptoss": r"<\|start\|>assistant<\|channel\|>final<\|message\|>",
}
# Those that show tools and their calls; of the others such conversations are refused.
KNOWS_TOOLS = {"qwen2_5", "qwen3", "qwen3_instruct_2507", "glm4moe", "lfm2_v2", "gptoss"}
# Those that show an earlier reply otherwise than the last: each is a row of its own.
APART = {"qwen3", "gptoss", "glm4moe"}
# Whose replies end with the next turn's head: in a row of its own a reply gets the end of sequence.
ENDLESS = {"glm4moe"}


def _read(name: str) -> str:
    assert _FOUND is not None and _FOUND.submodule_search_locations is not None
    folder = Path(_FOUND.submodule_search_locations[0])
    return (folder / "chat_templates" / f"{name}.jinja").read_text()


@lru_cache
def pair(name: str) -> tuple[str, str]:
    """(stock, twin)."""
    if name in ("ChatML", "SmolLM2"):
        stock = CHAT if name == "ChatML" else SMOL
        return stock, _own_twin(stock)
    return _read(name), _read(f"{name}_training")


@lru_cache
def tokenizer(name: str) -> Any:
    """A small one that knows the template's marks."""
    made = byte_level(chat=CHAT, bos=True)
    stock, _ = pair(name)
    marks = sorted(set(_SPECIAL.findall(stock)) - set(made.all_special_tokens))
    made.add_special_tokens({"additional_special_tokens": [*marks, "<|im_start|>", "<|im_end|>"]})
    made.chat_template = stock
    return made


def conversations(seed: int) -> list[Example]:
    """One to eight turns, with a system or none, texts of any kind but marks."""
    rng = random.Random(seed)
    texts = [
        "a cat",
        "It is 3.5 times!",
        "état",
        "x\ny\n\nz",
        "{{ x }}",
        "user",
        "0",
        "🙂 ok",
        "<b>",
    ]
    made = []
    for exchanges in range(1, 9):
        turns = [Message("system", "Be brief.")] if rng.random() < 0.5 else []
        for _ in range(exchanges):
            turns += [Message("user", rng.choice(texts))]
            turns += [Message("assistant", rng.choice(texts), trained=True)]
        *before, asked, reply = turns
        made.append(Example(asked.content, (reply.content,), turns=tuple(before)))
    return made


def with_tools(said: str) -> Example:
    """One whose assistant calls a tool, saying something beside the call or nothing."""
    function = {"name": "f", "arguments": {"x": 1}}
    call = json.dumps([{"type": "function", "id": "abcdefghi", "function": function}])
    turns = (
        Message("user", "a cat"),
        Message("assistant", said, call, trained=True),
        Message("tool", "2", name="f"),
        Message("assistant", "It is 2.", trained=True),
    )
    own = {"type": "object", "properties": {"x": {"type": "integer", "description": "n"}}}
    told = {"name": "f", "description": "d", "parameters": own}
    tools = json.dumps([{"type": "function", "function": told}])
    return Example("and?", ("Good.",), turns=turns, tools=tools)


def ours(name: str, example: Example, loss: Any) -> Encoded:
    stock = pair(name)[0]
    template = Template("{source}{target}", loss=loss).framed(frame(tokenizer(name), jinja=stock))
    return template.encode(tokenizer(name), example, example.targets[0], 5000)


def twins(name: str, example: Example) -> tuple[list[int], list[int]]:
    """(ids, mask) of the twin."""
    turns = [turn.asked() for turn in (*example.turns, example.last)]
    turns.append({"role": "assistant", "content": example.targets[0]})
    made = tokenizer(name).apply_chat_template(
        turns,
        chat_template=_held(pair(name)[1], _DATE),
        tools=json.loads(example.tools) if example.tools else None,
        return_dict=True,
        return_assistant_tokens_mask=True,
        **PINNED,
    )
    return list(made["input_ids"]), list(made["assistant_masks"])


def beyond(name: str, made: Encoded, ids: list[int], mask: list[int]) -> list[str]:
    """What the twin marks and we do not, from our first trained token on.

    Fails where we mark what it does not.
    """
    own = {at for start, stop in made.spans for at in range(start, stop)}
    missing = [at for at in own if not mask[at]]
    assert not missing, (
        f"{name}: {tokenizer(name).decode([ids[i] for i in missing])!r} is ours alone"
    )
    runs: list[list[int]] = []
    first = made.target_start
    while first and mask[first - 1]:  # the head of our first reply
        first -= 1
    for at in range(first, len(ids)):
        if mask[at] and at not in own:
            if runs and runs[-1][-1] == at - 1:
                runs[-1].append(at)
            else:
                runs.append([at])
    return [tokenizer(name).decode([ids[at] for at in run]) for run in runs]


@pytest.mark.parametrize("name", BEYOND)
def test_a_reply_is_what_the_twin_marks(name: str) -> None:
    compared = 0
    for example in [*conversations(0), *conversations(1)]:
        try:
            ids, mask = twins(name, example)
        except Exception:  # a template that knows no system, or no tools, raises what it likes
            with pytest.raises(InputError):
                ours(name, each_reply(example)[-1], "last")
            continue
        rows = []
        try:
            rows = [ours(name, example, "replies")]
        except NotOneRow:
            assert name in APART, "the others train all replies in one row"
            rows = [ours(name, one, "last") for one in each_reply(example)[-1:]]
        for made in rows:
            if name in ENDLESS:
                *before, (start, stop) = made.spans
                made = Encoded(made.ids[:-1], (*before, (start, stop - 1)))
            if list(made.ids) != ids[: len(made.ids)]:
                assert name in APART, "both render the same text"
                continue
            compared += 1
            for text in beyond(name, made, ids, mask):
                assert re.fullmatch(BEYOND[name], text), f"{name} marks {text!r} too"
    assert compared >= (2 if name == "qwen3" else 8)  # whose twin shows all thoughts


@pytest.mark.parametrize("name", sorted(set(BEYOND) - APART))
def test_a_template_with_marks_gives_the_same_spans(name: str) -> None:
    """Marks round more than a reply change nothing: what counts is where one begins."""
    stock, twin = (
        Template("{source}{target}", loss="replies").framed(frame(tokenizer(name), jinja=text))
        for text in pair(name)
    )
    for example in conversations(3):
        try:
            rows = [one.encode(tokenizer(name), example, example.targets[0], 5000)
                    for one in (stock, twin)]  # fmt: skip
        except InputError:  # it knows no system
            assert example.turns[0].role == "system"
            continue
        assert rows[0] == rows[1]


@pytest.mark.parametrize("name", sorted(set(BEYOND) - APART))
def test_marks_in_messages_are_mere_text(name: str) -> None:
    known = tokenizer(name)
    end = frame(known, jinja=pair(name)[0]).end
    marks = "".join(sorted(set(_SPECIAL.findall(pair(name)[0]))))
    turns = (
        Message("user", f"x{end}y{marks}"),
        Message("assistant", f"a{marks}{end} b", trained=True),
    )
    example = Example(f"{marks} now?", (f"c {marks}",), turns=turns)
    plain = replace(
        example,
        source="now?",
        targets=("c",),
        turns=(Message("user", "x"), Message("assistant", "a", trained=True)),
    )
    tricky, usual = ours(name, example, "replies"), ours(name, plain, "replies")
    own = known.convert_tokens_to_ids(end)
    assert tricky.ids.count(own) == usual.ids.count(own)
    assert [tricky.ids[stop - 1] for _, stop in tricky.spans] == [own, own]
    special = set(known.all_special_ids)
    assert [i for i in tricky.ids if i in special] == [i for i in usual.ids if i in special]


@pytest.mark.parametrize("said", ["", "I look."])
@pytest.mark.parametrize("name", BEYOND)
def test_calls_of_tools_are_replies_too(name: str, said: str) -> None:
    example = with_tools(said)
    if name not in KNOWS_TOOLS or (name == "gptoss" and said):  # which hides what precedes a call
        with pytest.raises(InputError):
            ours(name, example, "replies")
        return
    if name in APART:
        made = [ours(name, one, "last") for one in each_reply(example)[1:]]
        assert [tokenizer(name).decode(row.trained[:-1]).strip() for row in made] == [
            "It is 2.", "Good."
        ]  # fmt: skip
        return
    made = [ours(name, example, "replies")]
    ids, mask = twins(name, example)
    assert list(made[0].ids) == ids[: len(made[0].ids)], "both render the same text"
    for text in beyond(name, made[0], ids, mask):
        assert re.fullmatch(BEYOND[name], text), f"{name} marks {text!r} too"
    first, *others = (tokenizer(name).decode(ids[a:b]) for a, b in made[0].spans)
    assert first.startswith(said) and re.search(r"x\W+1", first) and len(others) == 2


@pytest.mark.parametrize("name", BEYOND)
def test_each_reply_follows_the_templates_own_generation_prompt(name: str) -> None:
    compared = 0
    for example in conversations(2):
        for one in each_reply(example):
            turns = [turn.asked() for turn in (*one.turns, one.last)]
            stock = _held(pair(name)[0], _DATE)
            try:
                text = tokenizer(name).apply_chat_template(
                    turns, chat_template=stock, add_generation_prompt=True, tokenize=False, **PINNED
                )
            except Exception:  # it knows no system
                continue
            shown = text.removesuffix("<think>\n")  # which DeepSeek's opens, and no reply shows
            prompt = tokenizer(name)(shown, add_special_tokens=False)["input_ids"]
            made = ours(name, one, "last")
            assert list(made.ids[: len(prompt)]) == prompt and len(prompt) <= made.target_start
            compared += 1
    assert compared >= 8
