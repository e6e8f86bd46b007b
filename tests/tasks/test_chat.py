"""Chat frames, held against `apply_chat_template` of transformers."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab.errors import InputError
from peftlab.tasks import Example, Template
from peftlab.tasks.chat import Frame, frame
from tests.tasks.tokenizers_for_tests import CHAT, CHATS, GEMMA, LLAMA, QWEN, SMOL, byte_level

ROOM = 2000
# As transformers' own users would pin what our frames pin.
PINNED: Any = {"date_string": "26 Jul 2024", "enable_thinking": False}
each_chat = pytest.mark.parametrize("chat", [name for name in CHATS if name != "clock"])
_MARKS = re.compile(r"<\|\w+\|>")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@lru_cache
def tokenizer(chat: str) -> Any:
    return byte_level(chat=CHATS.get(chat, chat), bos=True)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def model(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def own(chat: str, turns: list[dict[str, str]], **options: Any) -> Any:
    """What transformers makes of it."""
    return tokenizer(chat).apply_chat_template(turns, return_dict=False, **PINNED, **options)


def framed(chat: str, system: str | None = None) -> Template:
    return Template("{instruction}{source}{target}").framed(frame(tokenizer(chat), system))


@each_chat
@given(source=texts, target=texts.filter(lambda text: text.strip()))
def test_a_row_is_what_transformers_renders(chat: str, source: str, target: str) -> None:
    row = framed(chat).encode(tokenizer(chat), Example(source, ()), target, ROOM)
    assert list(row.ids[: row.target_start]) == own(
        chat, [user(source)], add_generation_prompt=True
    )
    whole = own(chat, [user(source), model(target.strip())], tokenize=False)
    assert whole.rstrip("\n") == tokenizer(chat).decode(row.ids)
    end = "<|eot_id|>" if chat == "Llama 3" else "<|im_end|>"
    assert row.ids[-1] == tokenizer(chat).convert_tokens_to_ids(end)


@each_chat
@given(before=texts, after=texts)
def test_special_tokens_of_a_source_are_mere_text(chat: str, before: str, after: str) -> None:
    """As transformers' `split_special_tokens` reads all that stands between the frame's own."""
    made, source = tokenizer(chat), f"{before}<|im_end|>{after}<|im_start|>"
    row = framed(chat).encode(made, Example(source, ()), "a cat", ROOM)
    found = frame(made)
    shown = f"{found.head}{source.strip() if found.strips else source}{found.bridge}"
    own = Counter(_MARKS.findall(found.head + found.bridge))
    ids = list(row.ids[: row.target_start])
    for text, count in own.items():
        assert ids.count(made.convert_tokens_to_ids(text)) == count, "the template's alone"
    assert made.decode(ids) == shown
    opening = _MARKS.split(found.head)[-1]
    inner = opening + (source.strip() if found.strips else source) + _MARKS.split(found.bridge)[0]
    mere = made(inner, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    start = len(made(found.head.removesuffix(opening), add_special_tokens=False)["input_ids"])
    assert ids[start : start + len(mere)] == mere


@each_chat
def test_exemplars_are_earlier_exchanges(chat: str) -> None:
    shown = [Example(" the cat", ("a cat ",)), Example("mat\n", ("the mat",))]
    template = framed(chat).with_instruction("Do it.").with_exemplars(shown)
    row = template.encode(tokenizer(chat), Example("the end", ()), None, ROOM)
    first = " the cat" if not frame(tokenizer(chat)).strips else "the cat"
    turns = [user(f"Do it.\n{first}"), model("a cat"), user("mat\n"), model("the mat")]
    assert list(row.ids) == own(chat, [*turns, user("the end")], add_generation_prompt=True)


def test_a_chat_that_shows_earlier_exchanges_otherwise_holds_no_exemplars() -> None:
    alone = "{% if messages | length > 2 %}{{ raise_exception('one at a time') }}{% endif %}" + CHAT
    template = Template("{source}{target}").framed(frame(tokenizer(alone)))
    example = Example("the cat", ())
    assert template.encode(tokenizer(alone), example, "a", ROOM).dropped == 0
    few = template.with_exemplars([Example("a", ("b",))])
    with pytest.raises(InputError, match="cannot hold exemplars"):
        few.encode(tokenizer(alone), example, "a", ROOM)


def test_dates_are_held() -> None:
    for chat in ("Llama 3", "clock"):
        found = frame(tokenizer(chat))
        assert "26 Jul" in found.head and "2024" in found.head and found.date == "2024-07-26"
        assert "date is held at 2024-07-26" in found.told()
    assert frame(tokenizer("SmolLM2")).date is None


def test_thoughts_are_off_and_that_is_said() -> None:
    found = frame(tokenizer("Qwen3"))
    assert found.bridge.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert found.past == "<|im_end|>\n<|im_start|>assistant\n" and found.thinks
    assert "thinking is off" in found.told()
    opened = "{% if add_generation_prompt %}<think>\n{% endif %}"  # DeepSeek-R1's
    assert frame(tokenizer(CHAT + opened)).thinks and not frame(tokenizer("SmolLM2")).thinks
    assert "think" not in frame(tokenizer(CHAT + opened)).bridge


@pytest.mark.parametrize(
    ("chat", "system"),
    [("SmolLM2", "You are a cat."), ("Llama 3", "You are a cat."), ("ChatML", ""), ("Gemma", "")],
)
def test_a_system_prompt_of_the_templates_own_is_known(chat: str, system: str) -> None:
    found = frame(tokenizer(chat))
    assert found.system == system and ("the system prompt is" in found.told()) == bool(system)


@pytest.mark.parametrize("chat", ["SmolLM2", "Llama 3", "ChatML", "Qwen3"])
@pytest.mark.parametrize("words", ["Be a dog.", ""])
def test_another_system_prompt_takes_its_place(chat: str, words: str) -> None:
    row = framed(chat, words).encode(tokenizer(chat), Example("the mat", ()), None, ROOM)
    turns = [{"role": "system", "content": words}, user("the mat")]
    assert list(row.ids) == own(chat, turns, add_generation_prompt=True)
    assert frame(tokenizer(chat), words).system == words


def test_a_system_prompt_without_a_place_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot render .*\(system, user, .* System role not"):
        frame(tokenizer("Gemma"), "Be a dog.")
    deaf = CHAT.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    with pytest.raises(InputError, match=r"shows no system prompt, so system='Be a dog.'"):
        frame(tokenizer(deaf), "Be a dog.")


@pytest.mark.parametrize("chat", [LLAMA, SMOL, QWEN, GEMMA])
def test_a_stored_frame_needs_no_chat_template(chat: str) -> None:
    """As an adapter's is: the tokenizer's template may change, or be gone."""
    made = byte_level(chat=chat, bos=True)
    template = Template("{instruction}{source}{target}").framed(frame(made))
    stored = Template.from_dict(json.loads(json.dumps(template.to_dict())))
    assert stored == template and stored.frame == template.frame
    before = template.encode(made, Example("the cat", ()), "a mat", ROOM)
    for other in (CHAT, None, "{{ raise_exception('no') }}"):
        made.chat_template = other
        assert stored.encode(made, Example("the cat", ()), "a mat", ROOM) == before
        assert stored.end_id(made) == before.ids[-1]


def test_a_template_without_a_frame_follows_its_tokenizer() -> None:
    """As those that were stored before frames were."""
    made = byte_level(chat=SMOL)
    template = Template("{source}{target}", chat=True)
    before = template.encode(made, Example("the cat", ()), "a mat", ROOM)
    made.chat_template = CHAT
    after = template.encode(made, Example("the cat", ()), "a mat", ROOM)
    assert len(after.ids) < len(before.ids)
    assert "frame" not in template.to_dict() and "frame" not in template.identity()


def test_rows_that_are_framed_otherwise_are_another_run() -> None:
    template = framed("SmolLM2")
    told = replace(template.frame or frame(tokenizer("SmolLM2")), system="", date="1", thinks=True)
    assert replace(template, frame=told).identity() == template.identity()
    assert framed("SmolLM2", "Be a dog.").identity() != template.identity()


def test_an_end_that_a_tokenizer_lacks_is_refused() -> None:
    template = framed("Llama 3")
    with pytest.raises(InputError, match=r"end with '<\|eot_id\|>', which is no token"):
        template.encode(byte_level(), Example("the cat", ()), "a mat", ROOM)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ("x", "stored as 'x'; it is damaged"),
        ({"head": "a"}, "it is damaged"),
        ({"head": "a", "bridge": "b", "lead": "", "end": 3}, "end"),
        ({"head": "a", "bridge": "b", "lead": "", "end": "c", "tail": "d"}, "no option 'tail'"),
    ],
)
def test_a_damaged_frame_is_refused(stored: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Template.from_dict({"text": "{source}{target}", "chat": True, "frame": stored})


def test_a_frame_without_a_chat_is_refused() -> None:
    found = Frame(head="", bridge="b", lead="", end="c")
    with pytest.raises(InputError, match="stand in no chat"):
        Template("{source}{target}", frame=found)


def test_a_frame_is_cut_anew_where_the_template_changed() -> None:
    made = copy.deepcopy(tokenizer("SmolLM2"))
    first = frame(made)
    made.chat_template = CHAT
    assert frame(made) != first and frame(made) == frame(tokenizer("ChatML"))
