"""Files of conversations: which columns hold them, and their turns in one form.

Known are OpenAI's `messages`, ShareGPT's `conversations`, TRL's prompts and completions that are
lists of messages, and LLaMA-Factory's `system` and `history` beside a source and a target.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from peftlab.errors import InputError
from peftlab.tasks import columns as table_columns
from peftlab.tasks.columns import LEAVE_OUT, Columns, at, parsed, text
from peftlab.tasks.example import Example, Message
from peftlab.tasks.table import Table

_LISTS = ("messages", "conversations", "conversation")
_SYSTEM, _HISTORY, _TOOLS = ("system", "system_prompt"), ("history",), ("tools",)
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}
_READ = {"role", "from", "content", "value", "tool_calls", "name", "weight"}
_SILENT = {"tool_call_id", "refusal", "annotations", "id"}  # nothing of a reply hangs on them
_FOLLOWERS = {
    "": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "calls": ("tool",),
    "tool": ("tool", "assistant"),
}


@dataclass(frozen=True)
class Layout:
    """Which columns a conversation is made of.

    messages: whose lists of messages follow each other; none where `columns` names the texts of the
    last message and of its reply. system, history, tools: columns that stand beside. guessed:
    nobody has named them.
    """

    messages: tuple[str, ...] = ()
    columns: Columns | None = None
    system: str | None = None
    history: str | None = None
    tools: str | None = None
    guessed: bool = True

    @property
    def used(self) -> list[str]:
        """All columns that are read."""
        own = () if self.columns is None else (*self.columns.source, self.columns.target)
        beside = (self.system, self.history, self.tools)
        return [*self.messages, *own, *(name for name in beside if name is not None)]

    def __str__(self) -> str:
        names = [f"the columns {', '.join(self.used)}"] if self.columns else self.used
        return f"{'+'.join(names)} ({'guessed' if self.guessed else 'given'})"


def layout(table: Table, given: Mapping[str, str], asked: bool | None) -> Layout | None:
    """How the table holds conversations; None where its rows are a source and a target.

    Args:
        given: columns by "source" and "target".
        asked: False: they are none, whatever the columns are called.

    Raises:
        InputError: conversations are asked for, and no column holds any.
    """
    if asked is False:
        return None
    named = {name.lower(): name for name in reversed(table.columns)}

    def column(names: Iterable[str]) -> str | None:
        free = (named[n] for n in names if n in named)
        return next((n for n in free if n not in given.values()), None)

    tools = column(_TOOLS)
    for messages in _candidates(given, named):
        _refuse_unreadable(table, messages)
        if all(_holds_messages(table, name) for name in messages):
            return Layout(messages, tools=tools, system=column(_SYSTEM), guessed=not given)
    system, history = column(_SYSTEM), column(_HISTORY)
    if system is not None or history is not None or asked:
        chosen = table_columns.choose(table, given)
        return Layout((), chosen, system, history, tools, chosen.guessed)
    return None


def _candidates(given: Mapping[str, str], named: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Columns that may hold messages, the likeliest first."""
    if given:
        return [tuple(given[key] for key in ("source", "target") if key in given)]
    lists = [(named[name],) for name in _LISTS if name in named]
    both = all(name in named for name in ("prompt", "completion"))
    return [*lists, *([(named["prompt"], named["completion"])] if both else [])]


def _refuse_unreadable(table: Table, names: Sequence[str]) -> None:
    """Refuse lists that are written otherwise than as JSON, in a column that is called messages."""
    for name in names:
        value = _first(table, name)
        written = isinstance(value, str) and value.lstrip()[:1] == "["
        if name.lower() in _LISTS and written and parsed(value) is value:
            raise InputError(
                f"{table.place(0)}: the column {name!r} holds {value!r:.60}, which is no JSON; a "
                "list of messages was expected. Write it with json.dumps, or the file as jsonl."
            )


def _first(table: Table, name: str) -> Any:
    """The first value of a column that is one."""
    values = (row.get(name) for row in table.rows)
    return next((value for value in values if value is not None), None)


def _holds_messages(table: Table, name: str) -> bool:
    """Whether the first value of a column is a list of messages."""
    value = parsed(_first(table, name))
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(it, Mapping) and ("role" in it or "from" in it) for it in value)
    )


@dataclass(frozen=True)
class ConversationReader:
    """Makes an example of a row, see `rows.Reader`.

    extra: further columns that the template names. loss: which replies are trained on. drop_blank:
    leave out rows that cannot be used, which are an error otherwise.

    cut: numbers of the rows that went on after their last reply. passed: what messages hold that is
    not read. refused: why the first row that is left out cannot be used.
    """

    table: Table
    layout: Layout
    extra: Sequence[str] = ()
    loss: Literal["last", "replies"] = "last"
    drop_blank: bool = False
    cut: set[int] = field(default_factory=set, compare=False)
    passed: set[str] = field(default_factory=set, compare=False)
    refused: list[str] = field(default_factory=list, compare=False)

    def __call__(self, index: int, row: Mapping[str, Any]) -> Example | None:
        """Return the example of row `index` of the table, or None where it is left out."""
        try:
            return self._example(index, row)
        except InputError as error:
            if not self.drop_blank:
                raise
            if not self.refused:
                self.refused.append(str(error).partition(f", or {LEAVE_OUT}")[0])
            return None

    def notes(self, split: str) -> list[str]:
        """What is to be said of the rows that were read."""
        said = []
        if self.cut:
            said.append(
                f"{len(self.cut):,} conversations of {split} go on after the last reply that is "
                "trained on: those messages are not read."
            )
        if self.passed:
            said.append(
                f"Messages of {split} also hold {', '.join(sorted(self.passed))}: not read."
            )
        return said

    def _example(self, index: int, row: Mapping[str, Any]) -> Example:
        place, layout = self.table.place(index), self.layout
        turns = self._turns(index, row, place)
        if layout.history is not None:
            earlier = row.get(layout.history)
            turns = [*_history(earlier, layout.history, place, self.passed), *turns]
        if layout.system is not None and not (turns and turns[0].role == "system"):
            turns = [*_system(row, layout.system, place), *turns]
        turns = _in_order(turns, place)
        replies = [i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.trained]
        if not replies:
            raise _refused(place, "no message is a reply of the assistant's that is trained on")
        last = replies[-1]
        if turns[last + 1 :]:
            self.cut.add(index)
        history = tuple(
            replace(turn, trained=turn.trained and self.loss == "replies" and i in replies)
            for i, turn in enumerate(turns[: last - 1])
        )
        asked, reply = turns[last - 1 : last + 1]
        fields = {name: text(row, name, place) for name in self.extra}
        tools = "" if layout.tools is None else _tools(row.get(layout.tools), place)
        return Example(
            asked.content, (reply.content,), fields, history, asked.role, tools, reply.calls
        )

    def _turns(self, index: int, row: Mapping[str, Any], place: str) -> list[Message]:
        columns = self.layout.columns
        if columns is not None:
            example = table_columns.RowReader(self.table, columns)(index, row)
            assert example is not None  # drop_blank is not asked for
            if len(example.targets) != 1:
                raise _refused(place, f"{columns.target} holds several replies", "Keep one")
            target = example.targets[0]
            return [Message("user", example.source), Message("assistant", target, trained=True)]
        return [
            turn
            for name in self.layout.messages
            for turn in _messages(at(row, name, place), name, place, self.passed)
        ]


def _refused(place: str, what: str, mend: str = "Mend it") -> InputError:
    return InputError(f"{place}: {what}. {mend}, or {LEAVE_OUT}")


def _messages(value: Any, name: str, place: str, passed: set[str]) -> list[Message]:
    """The messages of a column."""
    value = parsed(value)
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else f"{value!r:.40}"
        raise _refused(place, f"the column {name!r} holds {kind}; a list of messages was expected")
    return [
        _message(each, f"{place}, message {number} of {name!r}", passed)
        for number, each in enumerate(value, start=1)
    ]


def _message(value: Any, place: str, passed: set[str]) -> Message:
    if not isinstance(value, Mapping):
        raise _refused(place, f"it is {value!r:.40}; a role and a content were expected")
    own = value.get("role", value.get("from"))
    if own not in _ROLES:
        known = "system, user, assistant, tool (human, gpt)"
        raise _refused(place, f"its role is {own!r:.40}; {known} were expected")
    content = _content(value.get("content", value.get("value")), place)
    calls = _calls(value.get("tool_calls"), place)
    if own == "function_call":
        content, calls = "", _calls(content, place)
    passed |= {key for key, held in value.items() if held and key not in _READ | _SILENT}
    if _ROLES[own] != "tool" and value.get("name"):
        passed.add("name")
    weight = value.get("weight")
    return Message(
        _ROLES[own],
        content,
        calls,
        str(value.get("name") or "") if _ROLES[own] == "tool" else "",
        trained=_ROLES[own] == "assistant" and (weight is None or bool(weight)),
    )


def _content(value: Any, place: str) -> str:
    """A message's text; OpenAI's parts of type text are joined."""
    if value is None:
        return ""
    if isinstance(value, list):
        for part in value:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind != "text":
                raise _refused(place, f"a part of it is of type {kind!r:.40}; text was expected")
        return "".join(_content(part.get("text"), place) for part in value)
    return table_columns.checked(value, "content", place)


def _calls(value: Any, place: str) -> str:
    """Calls of tools, as JSON in OpenAI's form, their arguments as an object."""
    value = parsed(value)
    if not value:
        return ""
    calls = [_call(each, place) for each in (value if isinstance(value, list) else [value])]
    return json.dumps(calls, ensure_ascii=False)


def _call(value: Any, place: str) -> dict[str, Any]:
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise _refused(place, f"it calls {value!r:.60}; a function's name and arguments expected")
    function = {"name": inner["name"], "arguments": parsed(inner.get("arguments") or {})}
    known = {"id": value["id"]} if isinstance(value.get("id"), str) else {}
    return {**known, "type": "function", "function": function}


def _history(value: Any, name: str, place: str, passed: set[str]) -> list[Message]:
    """Earlier exchanges, as pairs of texts or as messages."""
    value = parsed(value) or []
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return _messages(value, name, place, passed)
    turns = []
    for pair in value if isinstance(value, list) else [value]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _refused(place, f"{name} holds {pair!r:.40}; pairs of texts were expected")
        asked, reply = (table_columns.checked(each, name, place) for each in pair)
        turns += [Message("user", asked), Message("assistant", reply, trained=True)]
    return turns


def _system(row: Mapping[str, Any], name: str, place: str) -> list[Message]:
    content = row.get(name)
    return [Message("system", text(row, name, place))] if content else []


def _tools(value: Any, place: str) -> str:
    value = parsed(value)
    if not value:
        return ""
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise _refused(place, f"tools is {value!r:.60}; a list of functions was expected")
    return json.dumps([dict(each) for each in value], ensure_ascii=False)


def _in_order(turns: Sequence[Message], place: str) -> list[Message]:
    """The turns, if a model could have had this conversation.

    Raises:
        InputError: names the first one that is out of order, or empty.
    """
    turns = [turn for turn in turns if turn.role != "system" or turn.content.strip()]
    before = ""
    for number, turn in enumerate(turns, start=1):
        if turn.role == "system" and number == 1:
            continue
        if turn.role not in _FOLLOWERS[before]:
            after = f"after the {before.replace('calls', 'call of a tool')}" if before else "first"
            expected = " or ".join(_FOLLOWERS[before])
            what = f"message {number} is the {turn.role}'s {after}; {expected} was expected"
            raise _refused(place, what, "Join or take out messages")
        if not turn.content.strip() and not turn.calls and turn.role != "tool":
            raise _refused(place, f"message {number}, the {turn.role}'s, is empty", "Fill it")
        before = "calls" if turn.calls else turn.role
    return turns


def each_reply(example: Example) -> list[Example]:
    """One example for each reply that is trained on, with the true history before it."""
    all_turns = (*example.turns, example.last)
    made = []
    for place, turn in enumerate(example.turns):
        if turn.trained:
            asked, before = all_turns[place - 1], _untrained(all_turns[: place - 1])
            made.append(
                replace(
                    example,
                    source=asked.content,
                    role=asked.role,
                    targets=(turn.content,),
                    turns=before,
                    calls=turn.calls,
                )
            )
    return [*made, replace(example, turns=_untrained(example.turns))]


def every_reply(rows: Iterable[Example]) -> list[Example]:
    """The same of all rows, in their order."""
    return [one for row in rows for one in each_reply(row)]


def _untrained(turns: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(replace(turn, trained=False) for turn in turns)
