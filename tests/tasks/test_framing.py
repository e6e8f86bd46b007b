"""Whether rows stand in a chat, and what an instruction model is asked there by default."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.methods import parse_one
from peftlab.methods.hard_prompt import HardPrompt
from peftlab.tasks import Task, Template
from peftlab.tasks.chat import frame
from peftlab.tasks.fit import fitted, look
from peftlab.tasks.framing import as_trained, kept
from peftlab.tasks.requests import GENERIC, request
from peftlab.tasks.show import describe
from tests.tasks.test_show import task_of
from tests.tasks.tokenizers_for_tests import GEMMA, SMOL, byte_level

BARE = "{instruction}{source}{target}"


@pytest.fixture(scope="module")
def smol() -> Any:
    return byte_level(chat=SMOL)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [{"dialogue": f"name : {i}", "summary": f"It is {i}.", "topic": "cats"} for i in "abcd"]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_rows_stand_in_the_chat_template_where_there_is_one(
    rows: Path, smol: Any, bpe: Any
) -> None:
    task = Task.load(rows)
    found = fitted(task, smol)
    assert found.template == Template(BARE).framed(frame(smol))
    (note,) = [note for note in found.notes if "chat template" in note]
    assert "reply ends with <|im_end|>" in note and "'You are a cat.', -o system=…" in note
    assert "-o chat=false turns that off" in note and note in describe(task, smol, 200)
    plain = fitted(task, bpe)
    assert plain.template == task.template and not any("chat" in note for note in plain.notes)
    assert plain.template.text == "{instruction}{source}\nSummary: {target}"
    assert fitted(found, bpe) is found, "decided once"


def test_chat_can_be_turned_off_and_asked_for(rows: Path, smol: Any, bpe: Any) -> None:
    off = fitted(Task.load(rows, chat=False), smol)
    assert off.template == Task.load(rows).template and not any("chat" in it for it in off.notes)
    assert (
        fitted(Task.load(rows, chat=True), smol).template == fitted(Task.load(rows), smol).template
    )
    with pytest.raises(InputError, match=r"has no chat template; it belongs to a base"):
        fitted(Task.load(rows, chat=True), bpe)
    with pytest.raises(InputError, match=r"system='Be a dog.' stands in a chat, and the base's"):
        fitted(Task.load(rows, system="Be a dog."), bpe)
    with pytest.raises(InputError, match=r"chat=false is given"):
        Task.load(rows, chat=False, system="Be a dog.")


def test_a_system_prompt_may_be_replaced(rows: Path, smol: Any) -> None:
    found = fitted(Task.load(rows, system="Be a dog."), smol)
    assert found.template.frame == frame(smol, "Be a dog.")
    assert "'Be a dog.')" in found.notes[-2] and "replaces" not in found.notes[-2]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, BARE),
        ({"cue": "Short:"}, "{instruction}{source}\nShort: {target}"),
        ({"template": "{source}?{target}"}, "{source}?{target}"),
        ({"template": "{topic}: {source}{target}"}, "{topic}: {source}{target}"),
    ],
)
def test_the_users_own_words_stay(
    rows: Path, smol: Any, options: dict[str, Any], text: str
) -> None:
    assert fitted(Task.load(rows, **options), smol).template.text == text


def test_a_text_that_was_put_in_later_stays(rows: Path, smol: Any) -> None:
    task = replace(Task.load(rows), template=Template("{source}!{target}"))
    assert fitted(task, smol).template == Template("{source}!{target}").framed(frame(smol))


def test_tasks_that_are_made_by_hand_stay_as_they_are(smol: Any) -> None:
    task = task_of(["the cat", "a cat"])
    assert fitted(task, smol).template == task.template
    chat = replace(task, template=replace(task.template, chat=True))
    assert fitted(chat, smol).template == task.template.framed(frame(smol)), "its frame is kept"


def test_what_is_decided_goes_to_other_processes(rows: Path, smol: Any) -> None:
    task = Task.load(rows)
    found = pickle.loads(pickle.dumps(look(task, smol)))
    assert found.apply(task) == fitted(task, smol)
    assert look(task, smol, ("test",)).joined(found).template == found.template


def test_a_chat_template_that_cannot_frame_a_task_is_refused_in_one_line(rows: Path) -> None:
    unending = byte_level(chat="{% for m in messages %}{{ m['content'] }};{% endfor %}")
    with pytest.raises(InputError, match=r"-o chat=false") as refused:
        fitted(Task.load(rows), unending)
    assert "\n" not in str(refused.value)
    assert not fitted(Task.load(rows, chat=False), unending).template.chat


def test_an_adapter_keeps_its_frame(rows: Path, smol: Any) -> None:
    own = Template(BARE).framed(frame(smol, "Be a dog."))
    found = as_trained(Task.load(rows), own)
    assert found.template == own and found.framing is None
    assert own.frame is not None and found.notes[-1] == kept(own.frame)
    assert "'Be a dog.'" in found.notes[-1]
    raw = as_trained(Task.load(rows), Template("{source}{target}"))
    assert fitted(raw, smol).template == Template("{source}{target}")
    hand_made = task_of(["the cat"])
    assert as_trained(hand_made, own) is hand_made


@pytest.mark.parametrize(
    ("options", "framed", "said"),
    [
        ({"chat": False}, True, "chat=false was asked for, .* its own template, in a chat"),
        ({"chat": True}, False, "chat=true was asked for, .* its own template, outside of a chat"),
        ({"system": "Be a dog."}, True, "with the system prompt 'You are a cat.'"),
        ({"system": "Be a dog."}, False, "with no chat"),
    ],
)
def test_an_adapter_is_not_asked_for_another_frame(
    rows: Path, smol: Any, options: dict[str, Any], framed: bool, said: str
) -> None:
    own = Template(BARE).framed(frame(smol)) if framed else Template("{source}{target}")
    with pytest.raises(InputError, match=said):
        as_trained(Task.load(rows, **options), own)


@pytest.mark.parametrize(
    ("source", "target", "labels", "words"),
    [
        (["dialogue"], "summary", None, "Summarize the following text."),
        (["meaning_representation"], "human_reference", None, "Put the following data into words."),
        (["mr"], "ref", None, "Put the following data into words."),
        (["sentence"], "label", ("bad", "good"), "Label .* one of: bad, good."),
        (["translation.en"], "translation.de", None, "Translate .* into German."),
        (["question"], "answers.text", None, "Answer the following question."),
        (["question", "context"], "answer", None, "Answer the following question."),
        (["table", "question"], "answer", None, "Answer the following question."),
        (["text"], "target_text", None, GENERIC),
        (["dialogue"], "response", None, "Reply to the following message."),
        (["article"], "headline", None, "Write the headline of the following text."),
        (["source"], "targets", None, GENERIC),
        (["text"], "is_spam", ("no", "yes"), "Label .* one of: no, yes."),
        (["instruction", "input"], "output", None, "$"),
    ],
)
def test_the_request_says_what_kind_of_task_it_is(
    source: list[str], target: str, labels: tuple[str, ...] | None, words: str
) -> None:

    assert re.match(words, request(source, target, labels))


def test_a_hard_prompt_asks_in_words_in_a_chat(rows: Path, smol: Any, bpe: Any) -> None:
    def asked(spec: str, tokenizer: Any, **options: Any) -> Any:
        method = parse_one(spec)
        assert isinstance(method, HardPrompt)
        return method.on(fitted(Task.load(rows, **options), tokenizer)).instruction

    assert asked("hard_prompt", smol) == "Summarize the following text."
    assert asked("hard_prompt", smol, instruction="Be short.") == "Be short."
    assert asked("hard_prompt", bpe) == asked("hard_prompt", smol, chat=False) == "none"
    assert asked("hard_prompt:instruction=none", smol) == "none"
    assert asked("hard_prompt:instruction=task", smol) == "task", "there is none"
    assert asked("hard_prompt:instruction=task", smol, instruction="Be short.") == "Be short."
    assert asked("hard_prompt:instruction=task", bpe, instruction="Be short.") == "task"
    own = {"template": "Into German: {source}{target}"}, {"cue": "Title:"}
    assert {asked("hard_prompt", smol, **words) for words in own} == {"none"}
    assert parse_one("hard_prompt").label == "hard_prompt"
    words = parse_one("hard_prompt+lora").on(fitted(Task.load(rows), smol)).settings()["parts"]
    assert words[0]["instruction"] == "Summarize the following text."


def test_sources_that_are_requests_are_not_asked_about(tmp_path: Path, smol: Any) -> None:
    lines = [{"instruction": f"Say {i}.", "input": "", "output": i} for i in "abcd"]
    path = tmp_path / "alpaca.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    task = fitted(Task.load(path), smol)
    assert parse_one("hard_prompt").on(task).settings()["instruction"] == "none"
    no_system = fitted(Task.load(path), byte_level(chat=GEMMA, bos=True))
    assert no_system.template.frame is not None and not no_system.template.frame.system
