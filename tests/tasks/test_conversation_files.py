"""Files of conversations as people have them: columns, roles, order, what is said and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.tasks import Example, Task
from peftlab.tasks.example import Message


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def model(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def load(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Task:
    """A task of these rows, and of enough others like the first to cut splits from."""
    path = folder / "talk.jsonl"
    text = json.dumps(rows[0])
    others = [json.loads(text.replace("Hello", f"Hello {i},")) for i in range(12)]
    test = folder / "test.jsonl"
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.write_text("".join(json.dumps(row) + "\n" for row in others))
    return Task.from_files(path, test=test, **options)


def first(folder: Path, row: dict[str, Any], **options: Any) -> Example:
    return load(folder, [row], **options).test[0]


TALK = [user("Hello"), model("Hi."), user("And?"), model("Fine.")]
HISTORY = (Message("user", "Hello"), Message("assistant", "Hi."))
WITH_SYSTEM = (Message("system", "Be kind."), *HISTORY)

SAME = {
    "OpenAI": {"messages": [user("Hello"), model("Hi."), user("And?"), model("Fine.")]},
    "OpenAI, parts of text": {
        "messages": [
            user("Hello"),
            model("Hi."),
            user([{"type": "text", "text": "An"}, {"type": "text", "text": "d?"}]),
            model("Fine."),
        ]
    },
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": "Hello"},
            {"from": "gpt", "value": "Hi."},
            {"from": "human", "value": "And?"},
            {"from": "gpt", "value": "Fine."},
        ]
    },
    "TRL": {"prompt": [user("Hello"), model("Hi."), user("And?")], "completion": [model("Fine.")]},
    "LLaMA-Factory": {
        "instruction": "And?", "input": "", "output": "Fine.", "history": [["Hello", "Hi."]]
    },
    "a csv's": {
        "messages": json.dumps([user("Hello"), model("Hi."), user("And?"), model("Fine.")])
    },
}  # fmt: skip


@pytest.mark.parametrize("row", SAME.values(), ids=list(SAME))
def test_every_form_is_the_same_conversation(tmp_path: Path, row: dict[str, Any]) -> None:
    assert first(tmp_path, row) == Example("And?", ("Fine.",), turns=HISTORY)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [system("Be kind."), *TALK]},
        {"messages": [{"role": "developer", "content": "Be kind."}, *TALK]},
        {"system": "Be kind.", "messages": TALK},
        {"system": "Be kind.", "history": [["Hello", "Hi."]], "prompt": "And?", "output": "Fine."},
    ],
)  # fmt: skip
def test_a_system_prompt_comes_first(tmp_path: Path, row: dict[str, Any]) -> None:
    assert first(tmp_path, row) == Example("And?", ("Fine.",), turns=WITH_SYSTEM)


def test_what_was_guessed_is_said_with_a_row_and_can_be_overridden(tmp_path: Path) -> None:
    row = {"messages": SAME["OpenAI"]["messages"], "id": 7, "question": "Hello", "answer": "Hi."}
    task = load(tmp_path, [row])
    assert task.notes[0] == (
        "Conversations: messages (guessed); not used: id, question, answer; trained on the last "
        "reply. The first: user: Hello 0, / assistant: Hi. / user: And? / assistant: Fine.."
    )
    plain = load(tmp_path, [row], source="question", target="answer")
    assert plain.test[0] == Example("Hello", ("Hi.",)) and "conversations" not in plain.notes[0]
    named = load(tmp_path, [{"talk": row["messages"]}], source="talk")
    assert named.test[0].turns == HISTORY and "talk (given)" in named.notes[0]
    alpaca = {"instruction": "Hello", "input": "", "output": "Hi.", "system": ""}
    off = load(tmp_path, [alpaca], conversations=False)
    assert off.test[0] == Example("Hello", ("Hi.",))
    assert "system, which no row shows" in off.notes[0]
    asked = load(tmp_path, [{"question": "Hello", "answer": "Hi."}], conversations=True)
    assert asked.framing is not None and asked.framing.turns


def test_a_data_sets_columns_of_lists(tmp_path: Path) -> None:
    """Of arrow, which writes null for what a message lacks."""
    import datasets

    rows = [
        {"messages": [user(f"Hello {i}"), model("Hi.", weight=None), *TALK[2:]]} for i in range(20)
    ]
    rows[0]["messages"][1]["tool_calls"] = None
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    task = Task.load(tmp_path / "saved")
    assert {len(e.turns) for e in task.train} == {2} and "messages (guessed)" in task.notes[0]
    assert task.train[0].targets == ("Fine.",)


def test_tools_and_their_calls(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    answer = {"role": "tool", "tool_call_id": "1", "name": "f", "content": "2"}
    row = {
        "messages": [user("Hello"), model(None, tool_calls=[call]), answer, model("Two.")],
        "tools": tools,
    }  # type: ignore[arg-type]
    read = first(tmp_path, row)
    assert (read.source, read.role, read.targets) == ("2", "tool", ("Two.",))
    called = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    assert read.turns[1].asked()["tool_calls"] == called
    assert json.loads(read.tools) == tools
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "Hello"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "2"},
            {"from": "gpt", "value": "Two."},
        ],
        "tools": json.dumps(tools),
    }
    again = first(tmp_path, sharegpt)
    assert again.turns[1].asked()["tool_calls"][0]["function"] == called[0]["function"]
    assert again.tools == read.tools
    assert Example.from_dict(json.loads(json.dumps(read.to_dict()))) == read
    last = first(tmp_path, {"messages": [user("Hello"), model("", tool_calls=[call])]})
    assert json.loads(last.calls) == called and last.targets == ("",)


def test_columns_that_only_some_rows_have(tmp_path: Path) -> None:
    plain = {"instruction": "Hello", "output": "Hi.", "history": [["a", "b"]]}
    less = {"instruction": "Hello", "output": "Hi."}
    assert [len(e.turns) for e in load(tmp_path, [plain, less]).test] == [2, 0]
    named = {"messages": [{"role": "user", "name": "Ann", "content": "Hello"}, model("Hi.")]}
    assert "Messages of train also hold name: not read." in load(tmp_path, [named]).notes


def test_sources_that_also_stand_in_train_are_counted_whatever_is_trained(tmp_path: Path) -> None:
    rows = [{"messages": [user(f"Hello {i}"), model("Hi."), *TALK[2:]]} for i in range(12)]
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:8]))
    (tmp_path / "validation.jsonl").write_text(json.dumps(rows[9]) + "\n")
    for loss in ("last", "replies"):
        notes = Task.load(tmp_path, loss=loss).notes
        assert "8 of 8 test sources also stand in train." in notes


def test_replies_with_weight_0_are_not_trained(tmp_path: Path) -> None:
    messages = [user("Hello"), model("a", weight=0), user("b"), model("c"), user("d"), model("e")]
    row = {"messages": messages}
    task = load(tmp_path, [row], loss="replies")
    assert [turn.trained for turn in task.train[0].turns] == [False, False, False, True]
    assert [(e.source, e.targets) for e in task.test] == [("b", ("c",)), ("d", ("e",))]
    assert not any(turn.trained for e in task.test for turn in e.turns)
    assert [len(e.turns) for e in task.test] == [2, 4], "the true history stands before each"
    messages[-1]["weight"] = 0
    short = load(tmp_path, [row])
    assert short.test[0].targets == ("c",)
    assert "1 conversations of test go on after the last reply" in " ".join(short.notes)


BAD = {
    "begins with the reply": (
        [model("Hi."), user("Hello"), model("Hi.")],
        "message 1 is the assis",
    ),
    "two of the user's": ([user("Hello"), user("Hello"), model("Hi.")], "assistant was expected"),
    "a late system": ([user("Hello"), system("x"), model("Hi.")], "message 2 is the system's"),
    "an empty turn": (
        [user("Hello"), model("Hi."), user(" "), model("x")],
        "message 3, the user's",
    ),
    "no reply": ([user("Hello")], "no message is a reply"),
    "nothing": ([], "holds an empty list"),
    "an unknown role": ([{"role": "cat", "content": "x"}], "its role is 'cat'"),
    "an image": (
        [{"role": "user", "content": [{"type": "image_url"}]}, model("x")],
        "of type 'image_url'",
    ),
    "a call without its answer": (
        [user("Hello"), model("", tool_calls=[{"function": {"name": "f"}}]), user("x"), model("y")],
        "after the call of a tool; tool was expected",
    ),
    "a number": ([user("Hello"), model(3)], "text was expected"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("messages", "said"), BAD.values(), ids=list(BAD))
def test_what_is_no_conversation_is_refused_in_one_line(
    tmp_path: Path, messages: list[dict[str, Any]], said: str
) -> None:
    good = {"messages": [user("Hello"), model("Hi.")]}
    bad = {"messages": messages}
    with pytest.raises(InputError, match=r"test\.jsonl, line 2") as refused:
        load(tmp_path, [good, bad])
    assert said in str(refused.value) and "\n" not in str(refused.value)
    kept = load(tmp_path, [good, bad], drop_blank=True)
    assert len(kept.test) == 1
    (note,) = (n for n in kept.notes if "1 rows of test are left out, the first: " in n)
    assert said in note


def test_lists_that_are_no_json_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    path.write_text("messages\n" + "\"[{'role': 'user', 'content': 'Hello'}]\"\n" * 12)
    with pytest.raises(InputError, match="which is no JSON"):
        Task.load(path)


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    talk, plain = (
        {"messages": [user("Hello"), model("Hi.")]},
        {"question": "Hello", "answer": "Hi."},
    )
    with pytest.raises(InputError, match="cue is of rows"):
        load(tmp_path, [talk], cue="Answer:")
    with pytest.raises(InputError, match="loss=replies is of conversations"):
        load(tmp_path, [plain], loss="replies")
    with pytest.raises(InputError, match="conversations=false"):
        load(tmp_path, [talk], loss="replies", conversations=False)


def test_tasks_with_a_name_hold_no_conversations() -> None:
    for options in ({"loss": "replies"}, {"conversations": True}):
        with pytest.raises(InputError, match="is of conversations, and the rows of demo"):
            Task.load("demo", **options)
    with pytest.raises(InputError, match="choices=x: two options at least"):
        Task.load("demo", choices="x")


def test_what_messages_also_hold_is_said(tmp_path: Path) -> None:
    thought = model("Hi.", reasoning_content="I greet.")
    task = load(tmp_path, [{"messages": [user("Hello"), thought]}])
    assert "Messages of train also hold reasoning_content: not read." in task.notes
