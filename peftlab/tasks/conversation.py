"""A conversation as a row: its turns in a chat template, and where its replies stand in that.

A template is a program, so its text is taken apart by what it renders: once with a mark in the
place of every message's content, once with the contents. What stands between the marks is the
template's; what stands in their place in the other is the data's, whatever marks it may hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from peftlab.errors import InputError
from peftlab.tasks.chat import Frame, Render, rendered
from peftlab.tasks.encode import Chunk, Part, Reply
from peftlab.tasks.example import Example, Message
from peftlab.tasks.markup import Pseudo
from peftlab.tasks.tokens import Tokenizer, traits

PLAIN = (
    "{% for message in messages %}{% if message.role == 'assistant' %}"
    "{{ 'Assistant: ' + message.content + eos_token + '\\n' }}"
    "{% else %}{{ message.role|capitalize + ': ' + message.content + '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Where a base has no chat template, or none is wanted: a line a turn."""


class NotOneRow(InputError):
    """The template shows an earlier reply otherwise than it was made: no row can train both."""


def parts(tokenizer: Tokenizer, frame: Frame, example: Example, last: Sequence[Part]) -> list[Part]:
    """The parts of a row before its target.

    Args:
        last: what stands in the place of the last message's content.

    Raises:
        InputError: the template cannot render the turns, or does not show one of them.
        NotOneRow: a reply that is to be trained does not stand in the row as it is made.
    """
    shown = _Shown(tokenizer, frame, example)
    # What the template makes of the last message's content, as of all others'.
    last = [
        replace(part, text=shown.contents[-2])
        if isinstance(part, Chunk) and part.kind == "source"
        else part
        for part in last
    ]
    lead = next((i for i, part in enumerate(last) if not isinstance(part, Pseudo)), len(last))
    made: list[Part] = list(last[:lead])
    for piece in shown.parts():
        made += last[lead:] if piece is None else [piece]
    return made


def called(tokenizer: Tokenizer, frame: Frame, example: Example) -> str:
    """The text of a reply that calls tools, as the template writes it.

    Raises:
        InputError: it writes none, or one that holds a special token.
    """
    reply = Message("assistant", example.targets[0], example.calls)
    turns = [*_opened(frame, example), example.last]
    render = _render(tokenizer, frame, example)
    whole = render([turn.asked() for turn in (*turns, reply)])
    prompt = render([turn.asked() for turn in turns], reply=True)
    text = whole[len(prompt) :].partition(frame.end)[0].strip()
    if not whole.startswith(prompt) or not text:
        raise InputError(
            f"the base's chat template does not show the tools that a reply calls "
            f"({json.loads(example.calls)[0]['function']['name']!r:.40}): take such rows out, or a "
            "base whose template knows tools"
        )
    if found := traits(tokenizer).special.search(text):
        raise InputError(
            f"the chat template writes calls of tools with the special token {found.group()!r}, "
            "which no target holds"
        )
    return text


def shorter(example: Example) -> Example | None:
    """The conversation without its oldest exchange; None where none can go. A system stays."""
    first = 1 if example.turns and example.turns[0].role == "system" else 0
    users = [i for i, turn in enumerate(example.turns) if turn.role == "user" and i > first]
    if users:
        return replace(example, turns=(*example.turns[:first], *example.turns[users[0] :]))
    if example.turns[first:] and example.role == "user":
        return replace(example, turns=example.turns[:first])
    return None


def _opened(frame: Frame, example: Example) -> tuple[Message, ...]:
    """The turns before the last message, under the frame's system prompt if they have none."""
    if not frame.system or any(turn.role == "system" for turn in example.turns[:1]):
        return example.turns
    return (Message("system", frame.system), *example.turns)


def _render(tokenizer: Tokenizer, frame: Frame, example: Example) -> Render:
    tools = json.loads(example.tools) if example.tools else None
    return partial(rendered_turns, tokenizer, jinja=frame.jinja, tools=tools)


def rendered_turns(tokenizer: Tokenizer, turns: Sequence[Mapping[str, Any]], **how: Any) -> str:
    """See `chat.rendered`; some templates (DeepSeek V3's) take a call's arguments as text alone."""
    try:
        return rendered(tokenizer, turns, **how)
    except InputError as error:
        if not any("tool_calls" in turn for turn in turns):
            raise
        try:
            return rendered(tokenizer, [_with_text_arguments(turn) for turn in turns], **how)
        except InputError:
            raise error from None


def _with_text_arguments(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    if "tool_calls" not in turn:
        return turn
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"]),
            },
        }
        for call in turn["tool_calls"]
    ]
    return {**turn, "tool_calls": calls}


class _Span(NamedTuple):
    """A reply in the text with marks, without its end; of a trained one, that token's id."""

    start: int
    stop: int
    end: int | None


class _Shown:
    """A conversation in its template, taken apart."""

    def __init__(self, tokenizer: Tokenizer, frame: Frame, example: Example) -> None:
        self.tokenizer, self.frame = tokenizer, frame
        self.turns = [*_opened(frame, example), example.last, Message("assistant", "…")]
        self.render = _render(tokenizer, frame, example)
        # Nothing stands in the place of an empty content: templates ask whether there is one.
        self.marks = [_mark(i) if turn.content else "" for i, turn in enumerate(self.turns)]
        self.text = self._marked(len(self.turns))
        self._check_tools(example)
        self.places = self._places()
        self.contents = self._contents()

    def parts(self) -> Iterator[Part | None]:
        """Everything before the last reply; None in the place of the last message's content."""
        at = 0
        for reply in self._replies():
            yield from self._between(at, reply.start)
            inside = [part for part in self._between(*reply[:2]) if part is not None]
            yield Reply(tuple(inside), reply.end)
            at = reply.stop + (0 if reply.end is None else len(self.frame.end))
        yield from self._between(at, self._led_from(self.places[-1]))

    def _between(self, start: int, stop: int) -> Iterator[Chunk | None]:
        """What stands in a stretch of the marked text."""
        for i, (place, mark) in enumerate(zip(self.places, self.marks, strict=True)):
            if not mark or not start <= place < stop:
                continue
            if place > start:
                yield Chunk(self.text[start:place], "template")
            is_last = i == len(self.turns) - 2
            yield None if is_last else Chunk(self.contents[i], "data")
            start = place + len(mark)
        if start < stop:
            yield Chunk(self.text[start:stop], "template")

    def _check_tools(self, example: Example) -> None:
        """Refuse tools, or calls of them, that the template leaves out, or that hold its marks."""
        calls = [turn.calls for turn in self.turns if turn.calls]
        names = [turn.name for turn in self.turns]
        for text in (example.tools, *calls, *names):
            if found := traits(self.tokenizer).special.search(text):
                raise InputError(
                    f"a tool, or a call of one, holds {found.group()!r}, a special token of this "
                    "tokenizer, which would stand in the row as such: take it out"
                )
        bare = [replace(turn, calls="") for turn in self.turns]
        untold: list[tuple[str, Sequence[Message], str]] = []
        untold += [("the tools", self.turns, "")] if example.tools else []
        untold += [("the calls of tools", bare, example.tools)] if calls else []
        for what, turns, tools in untold:
            if self._says_the_same(turns, replace(example, tools=tools)):
                plain = self.frame.jinja == PLAIN
                where = "plain lines do" if plain else "the base's chat template does"
                raise InputError(
                    f"{where} not show {what} of the conversation {self.turns[0].told()!r:.60}, so "
                    "no row can hold it: take such rows out, or a base whose template knows tools"
                )

    def _says_the_same(self, turns: Sequence[Message], example: Example) -> bool:
        render = _render(self.tokenizer, self.frame, example)
        try:
            return render(_with_contents(turns, self.marks)) == self.text
        except InputError:  # an empty message, say, which only a call explains
            return False

    def _marked(self, count: int, reply: bool = False) -> str:
        """The first turns, with marks for contents."""
        return self.rendered_turns(self.marks[:count], reply)

    def rendered_turns(self, contents: Sequence[str], reply: bool = False) -> str:
        return self.render(_with_contents(self.turns, contents), reply=reply)

    def _places(self) -> list[int]:
        """Where each mark stands; of empty contents −1."""
        places, at = [], 0
        for turn, mark in zip(self.turns, self.marks, strict=True):
            place = self.text.find(mark, at) if mark else -1
            if mark and place < 0:
                raise InputError(
                    f"the chat template of {type(self.tokenizer).__name__} does not show the "
                    f"message {turn.told()!r:.60} in its place, so no row can hold it"
                )
            places.append(place)
            at = max(at, place + len(mark))
        return places

    def _contents(self) -> list[str]:
        """What the template shows of each content: some strip it, or leave its thoughts out.

        Raises:
            InputError: its own words hang on what messages say.
        """
        own = [turn.content for turn in self.turns[:-1]] + [self.marks[-1]]
        real, literals = self.rendered_turns(own), iter(self._literals())
        shown, at = [], self._past(real, 0, next(literals))
        for text, mark in zip(own, self.marks, strict=True):
            if not mark:
                shown.append("")
                continue
            after = next(literals)
            alike = (t for t in (text, text.strip()) if real.startswith(t + after, at))
            content = next(alike, None)
            if content is None:
                end = real.find(after, at) if after else len(real)
                content = real[at : max(at, end)]
            shown.append(content)
            at = self._past(real, at + len(content), after)
        return shown

    def _literals(self) -> list[str]:
        """The template's text before, between and after the marks."""
        literals, at = [], 0
        for place, mark in zip(self.places, self.marks, strict=True):
            if mark:
                literals.append(self.text[at:place])
                at = place + len(mark)
        return [*literals, self.text[at:]]

    def _past(self, real: str, at: int, literal: str) -> int:
        if real.startswith(literal, at):
            return at + len(literal)
        raise InputError(
            f"the chat template of {type(self.tokenizer).__name__} writes other words round these "
            f"messages ({self.turns[0].told()!r:.60}) than round others, so they cannot be told "
            "from its own: take out what looks like its marks, or leave the row out"
        )

    def _replies(self) -> list[_Span]:
        """The assistant's earlier replies.

        Raises:
            NotOneRow: see `parts`.
        """
        spans = []
        for i, turn in enumerate(self.turns[:-2]):
            if turn.role == "assistant" and turn.trained:
                spans.append(self._trained(i, turn))
            elif turn.role == "assistant" and self.marks[i]:
                place = self.places[i]
                spans.append(_Span(self._led_from(place), place + len(self.marks[i]), None))
        return spans

    def _trained(self, i: int, turn: Message) -> _Span:
        """A reply that stands in the whole as where it is the last."""
        mark = self.marks[i]
        before = self._marked(i, reply=True) if not mark else self._marked(i + 1).split(mark)[0]
        alike = self.contents[i].strip() == turn.content.strip()
        if not alike or not self.text.startswith(before + mark):
            raise NotOneRow(f"the chat template shows {turn.told()!r:.60} otherwise later on")
        after = len(before) + len(mark)
        stop = self.text.find(self.frame.end, after) if turn.calls else after
        if stop < 0 or not self.text.startswith(self.frame.end, stop):
            raise NotOneRow(
                f"the chat template ends {turn.told()!r:.60} otherwise than the last reply, with "
                f"{self.frame.end!r}"
            )
        return _Span(self._led_from(len(before)), stop, self.frame.end_id(self.tokenizer))

    def _led_from(self, place: int) -> int:
        """Where a reply begins whose text stands there: white space may lead it."""
        lead = self.frame.lead
        return place - len(lead) if lead and self.text[:place].endswith(lead) else place


def _with_contents(turns: Sequence[Message], contents: Sequence[str]) -> list[dict[str, Any]]:
    """As many of the turns as there are contents, each with its own."""
    pairs = zip(turns, contents, strict=False)
    return [{**turn.asked(), "content": content} for turn, content in pairs]


def _mark(number: int) -> str:
    return f"\ue000{number}\ue001"  # private use: in nobody's text
