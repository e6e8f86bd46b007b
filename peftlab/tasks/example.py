"""One row of a task, as text and as token ids."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from peftlab.errors import InputError

Begin = Literal["row", "cue"]
"""Where in a row a change begins: at its first token, or at the cue, after the source."""


Loss = Literal["last", "replies"]
"""Which replies of a conversation a row is trained on."""


@dataclass(frozen=True)
class Message:
    """A turn of a conversation.

    role: system, user, assistant or tool. calls: of an assistant's, the tools that it calls, as
    JSON (OpenAI's `tool_calls`). name: of the tool that answers. trained: a reply that rows are
    trained on, as they are on their targets. answers: the id of the call that a tool answers.
    """

    role: str
    content: str
    calls: str = ""
    name: str = ""
    trained: bool = field(default=False, compare=False)
    answers: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return what is not as usual, as plain JSON values."""
        return {k: v for k, v in asdict(self).items() if v or k in ("role", "content")}

    @classmethod
    def from_dict(cls, values: Any) -> Message:
        """Return the message that `to_dict` wrote. Raises `InputError` for anything else."""
        known: dict[str, Any] = values if isinstance(values, dict) else {}
        texts = [known.get("role"), known.get("content"), *(known.get(n, "") for n in _MORE)]
        if not all(isinstance(text, str) for text in texts) or set(known) - set(_KNOWN):
            raise InputError(
                f"a message is stored as {values!r:.100}; a role and a content were expected"
            )
        return cls(**known)

    def asked(self) -> dict[str, Any]:
        """Return the message as chat templates take it."""
        values: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.calls:
            values["tool_calls"] = json.loads(self.calls)
        values |= {"tool_call_id": self.answers} if self.answers else {}
        return values | ({"name": self.name} if self.name else {})

    def told(self) -> str:
        """Return the message for people: `user: How are you?`."""
        return f"{self.role}: {self.content}{self.calls}"


_MORE = ("calls", "name", "answers")
_KNOWN = ("role", "content", *_MORE, "trained")


@dataclass(frozen=True)
class Example:
    """A source with one or many accepted targets.

    `fields` holds the other columns that a template may name; they take part in equality but not
    in the hash, so that examples can be members of sets.

    turns: of a conversation, the messages before the last one, whose content is the source. role:
    whose that last message is. tools: that the assistant may call, as JSON. calls: of tools, that
    the reply is or ends in; a base's template writes them, see `fit`.

    options: that the target is one of, where each example has its own.
    """

    source: str
    targets: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    turns: tuple[Message, ...] = ()
    role: str = "user"
    tools: str = ""
    calls: str = ""
    options: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values from which `from_dict` makes this example again."""
        values: dict[str, Any] = {
            "source": self.source,
            "targets": list(self.targets),
            "fields": dict(self.fields),
        }
        if self.turns:
            values["turns"] = [turn.to_dict() for turn in self.turns]
        values |= {} if self.role == "user" else {"role": self.role}
        values |= {"tools": self.tools} if self.tools else {}
        values |= {"calls": self.calls} if self.calls else {}
        return values | ({"options": list(self.options)} if self.options else {})

    @classmethod
    def from_dict(cls, values: Any) -> Example:
        """Return the example that `to_dict` wrote. Raises `InputError` for anything else."""
        known: dict[str, Any] = values if isinstance(values, dict) else {}
        source: Any = known.get("source")
        targets: Any = known.get("targets")
        fields: Any = known.get("fields", {})
        lists = isinstance(targets, list | tuple) and isinstance(fields, dict)
        more = [known.get("role", "user"), known.get("tools", ""), known.get("calls", "")]
        options: Any = known.get("options", ())
        lists = lists and isinstance(options, list | tuple)
        texts = [source, *targets, *fields.values(), *more, *options] if lists else [None]
        if not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"an example is stored as {values!r:.100}; a source, targets and fields, all of "
                "them texts, were expected"
            )
        turns = tuple(Message.from_dict(turn) for turn in known.get("turns", ()))
        role, tools, calls = more
        return cls(source, tuple(targets), dict(fields), turns, role, tools, calls, tuple(options))

    @property
    def asked(self) -> Hashable:
        """What decides the reply: the source, and all that precedes it in a conversation."""
        told = bool(self.turns or self.tools)
        return (self.turns, self.tools, self.role, self.source) if told else self.source

    @property
    def last(self) -> Message:
        """The message that is answered."""
        return Message(self.role, self.source)

    @property
    def texts(self) -> list[str]:
        """The contents of all messages."""
        return [*(turn.content for turn in self.turns), self.source]

    def told(self) -> str:
        """Return the source for people; of a conversation, all turns."""
        turns = [*self.turns, *([self.last] if self.turns else [])]
        return "\n".join(turn.told() for turn in turns) or self.source

    def excerpt(self, length: int = 60) -> str:
        """Return the beginning of the source on one line, to name this row in a message."""
        text = " ".join(self.source.split())
        return text if len(text) <= length else text[: length - 1] + "…"


@dataclass(frozen=True)
class Encoded:
    """A row of token ids.

    ids: the whole row; pseudo token j of a soft prompt is the id -(j + 1).
    spans: the trained tokens, as ranges [start, stop); none in a row without its target.
    dropped: tokens of the source that truncation has cut.
    begin: index of the first token that edits change, where they begin at the cue; None: they
        begin nowhere, and the row is the bare base's.
    rivals: ids of options that the trained one, the row's last, is held against.
    beside: rows of a mixture's other experts, of the same example and with the same target.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    dropped: int = 0
    begin: int | None = 0
    rivals: tuple[tuple[int, ...], ...] = ()
    beside: tuple[Encoded, ...] = ()

    @classmethod
    def trained_from(
        cls, ids: tuple[int, ...], start: int, dropped: int = 0, begin: int | None = 0
    ) -> Encoded:
        """A row whose tokens from `start` on are trained; there may be none."""
        return cls(ids, ((start, len(ids)),) if start < len(ids) else (), dropped, begin)

    @property
    def rows(self) -> tuple[Encoded, ...]:
        """One row an expert of a mixture; of anything else this one."""
        return (self, *self.beside)

    @property
    def begins_nowhere(self) -> bool:
        """Whether edits of any of them have no place to begin."""
        return any(row.begin is None for row in self.rows)

    @property
    def longest(self) -> int:
        """Tokens of the longest of these."""
        return max(len(row.ids) for row in self.rows)

    def with_beside(self, others: Sequence[Encoded]) -> Encoded:
        """This row with those of a mixture's other experts; the most that any has lost is told.

        Raises `InputError` where they take the target apart into other tokens.
        """
        if any(row.trained != self.trained for row in others):
            raise InputError(
                "the experts of this mixture have the target in other tokens or ends, so their "
                "scores are not of the same: mix adaptations whose templates end alike"
            )
        dropped = max(self.dropped, *(row.dropped for row in others)) if others else self.dropped
        return replace(self, dropped=dropped, beside=tuple(others))

    @property
    def target_start(self) -> int:
        """Index of the first trained token; `len(ids)` where there is none."""
        return self.spans[0][0] if self.spans else len(self.ids)

    @property
    def trained(self) -> tuple[int, ...]:
        """The ids that are trained, in their order."""
        return tuple(i for start, stop in self.spans for i in self.ids[start:stop])

    @property
    def targets(self) -> int:
        """How many they are."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def units(self) -> int:
        """What the row counts in a mean of losses: its trained tokens; one, with rivals."""
        return 1 if self.rivals else self.targets

    def against(self, others: Sequence[tuple[int, ...]]) -> Encoded:
        """A row whose target ends in its end, held against other options; ends are not counted."""
        start, stop = self.spans[-1]
        return replace(
            self,
            ids=self.ids[:-1],
            spans=((start, stop - 1),),
            rivals=tuple(others),
            beside=tuple(row.against(others) for row in self.beside),
        )

    def alternatives(self) -> list[Encoded]:
        """The row, and one with each of its rivals in the place of the trained option."""
        if not self.rivals:
            return [self]
        alone = replace(
            self, rivals=(), beside=tuple(replace(row, rivals=()) for row in self.beside)
        )
        return [alone, *(alone.followed_by(ids) for ids in self.rivals)]

    def followed_by(self, target: tuple[int, ...]) -> Encoded:
        """The row with another target, or a prompt with one."""
        start = self.target_start
        return replace(
            self,
            ids=(*self.ids[:start], *target),
            spans=((start, start + len(target)),),
            beside=tuple(row.followed_by(target) for row in self.beside),
        )


class BeginsNowhere(UserWarning):
    """Edits that begin at certain tokens meet prompts without these."""


def nowhere_begun(rows: int, of: int) -> str:
    """What such a warning says."""
    return (
        f"{rows} of {of} prompts lack the tokens at which this aLoRA begins, so the bare base "
        "answers them: give the template that it was trained with"
    )


def start_of(row: Encoded, tokens: int) -> Encoded:
    """The first tokens of a prompt; at least one of them is edited."""
    ids = row.ids[:tokens]
    begin = None if row.begin is None else min(row.begin, len(ids) - 1)
    beside = tuple(start_of(one, tokens) for one in row.beside)
    return Encoded(ids, (), row.dropped, begin, beside=beside)
