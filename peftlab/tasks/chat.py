"""The frame that an instruction model's own chat template puts round a message and its reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from peftlab.errors import InputError
from peftlab.options import Checked, NotTheResult, Since, refuse_unknown
from peftlab.tasks.tokens import Tokenizer, check_embedded, is_embedded, reply_ends, traits

# Private use: in nobody's text.
_MESSAGE, _REPLY, _SYSTEM = "\ue000message\ue001", "\ue000reply\ue001", "\ue000system\ue001"
_LATER, _AGAIN = "\ue000later\ue001", "\ue000again\ue001"
_DATE, _OTHER_DATE = datetime(2024, 7, 26), datetime(2001, 2, 3)
"""Rows must not change from day to day. The first is what Llama 3's template takes by default."""

_CODES = "aAbBdHIjmMpSUwWyYcxX"  # of strftime

Render = Callable[..., str]
Turn = dict[str, str]
"""A message as templates take it: its `role` and its `content`."""


@dataclass(frozen=True, kw_only=True)
class Frame(Checked):
    """head + message + bridge + lead + reply + end, all of it text.

    Attributes:
        head: with the BOS where the template writes one, and the system's turn.
        lead: white space that belongs to the reply.
        end: the text of the one token that ends a reply.
        stops: of further ones, which end a reply where the model writes them.
        past, turn: an earlier exchange, as exemplars are, is message + past + reply + turn. None
            where the template does not show it as part of a longer chat.
        strips: messages lose the white space round them.
        system: the system prompt that head shows; empty where it shows none.
        date: what the template was told to be today (ISO 8601), where it looks at that.
        thinks: the template knows thoughts; they are turned off.
        jinja: of rows that are conversations, the chat template itself, which renders their turns;
            empty where one message and its reply are all there is.
    """

    head: str
    bridge: str
    lead: str
    end: str
    past: str | None = None
    turn: str | None = None
    strips: bool = False
    stops: Annotated[tuple[str, ...], Since(())] = ()
    system: Annotated[str, NotTheResult] = ""  # what these say, head and bridge show
    date: Annotated[str | None, NotTheResult] = None
    thinks: Annotated[bool, NotTheResult] = False
    jinja: Annotated[str, Since("")] = ""

    def end_id(self, tokenizer: Tokenizer) -> int:
        """The id of the token that ends a reply.

        Raises:
            InputError: the tokenizer, or its base, does not know that token.
        """
        found = _known_id(tokenizer, self.end)
        if found is None:
            raise InputError(
                f"The rows stand in a chat whose replies end with {self.end!r}, which is no token "
                f"of {type(tokenizer).__name__}. Load the tokenizer that they were made with."
            )
        check_embedded(tokenizer, [found], "The end of every reply")
        return found

    def end_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The ids at which a reply ends, that of `end_id` first.

        Raises:
            InputError: see `end_id`.
        """
        further = (_known_id(tokenizer, text) for text in self.stops)
        known = (i for i in further if i is not None and is_embedded(tokenizer, i))
        return tuple(dict.fromkeys((self.end_id(tokenizer), *known)))

    def shows(self, other: Frame) -> bool:
        """Whether another frame puts the same text round messages and replies."""
        return replace(self, stops=()) == replace(other, stops=())

    @classmethod
    def from_dict(cls, values: Any) -> Frame:
        """The frame of plain JSON values.

        Raises:
            InputError: they are none.
        """
        known = {item.name for item in fields(cls)}
        if not isinstance(values, Mapping) or not {"head", "bridge", "lead", "end"} <= set(values):
            raise InputError(f"A chat frame is stored as {values!r:.100}; it is damaged.")
        refuse_unknown(values, known, "A chat frame")
        return cls(**values)

    def told(self) -> str:
        """What is to be said of it, in a few words each."""
        said = [f"a reply ends with {' or '.join((self.end, *self.stops))}"]
        if self.system:
            said.append(f"the system prompt is {self.system!r:.120}")
        if self.date is not None:
            said.append(f"its date is held at {self.date}")
        if self.thinks:
            said.append("thinking is off")
        return "; ".join(said)

    def exchange(self) -> tuple[str, str]:
        """(past, turn).

        Raises:
            InputError: there are none.
        """
        if self.past is None or self.turn is None:
            raise InputError(
                "The chat template does not show an earlier exchange as it shows the last one, so "
                "it cannot hold exemplars. Leave them out, or the chat (-o chat=false)."
            )
        return self.past, self.turn


_KNOWN: WeakKeyDictionary[Tokenizer, dict[Any, Frame]] = WeakKeyDictionary()


def has_template(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer is an instruction model's."""
    return bool(getattr(tokenizer, "chat_template", None))


def frame(tokenizer: Tokenizer, system: str | None = None, jinja: str = "") -> Frame:
    """The chat frame of a tokenizer, as its template is now.

    It is cut out of a rendered exchange, so that what precedes a reply in training and in
    generation is the same text. (A template may render a finished reply without the thoughts that
    its generation prompt opens, as DeepSeek-R1's does; the frame never has them.)

    Args:
        system: a system prompt in the place of the template's own.
        jinja: a template in the place of the tokenizer's, for conversations; the frame keeps it.

    Raises:
        InputError: there is no template, or it cannot frame a message and a reply.
    """
    known = _KNOWN.setdefault(tokenizer, {})
    key = jinja or str(getattr(tokenizer, "chat_template", None)), system, reply_ends(tokenizer)
    if (key, jinja) not in known:
        known[key, jinja] = _cut(tokenizer, system, jinja)
    return known[key, jinja]


def _cut(tokenizer: Tokenizer, system: str | None, jinja: str) -> Frame:
    if not jinja and not has_template(tokenizer):
        raise InputError(
            f"The tokenizer {type(tokenizer).__name__} has no chat template; it belongs to a base "
            "model. Leave chat out, or load the instruction-tuned model's tokenizer."
        )
    opening = [] if system is None else [_turn("system", system)]
    user, reply = _turn("user", _MESSAGE), _turn("assistant", _REPLY)
    chat = [*opening, user, reply]
    render = partial(rendered, tokenizer, jinja=jinja)
    head, between, tail = _around(tokenizer, render(chat), _MESSAGE, _REPLY)
    if system is not None and system.strip() not in head:
        raise InputError(
            f"The chat template of {type(tokenizer).__name__} shows no system prompt, so "
            f"system={system!r:.60} has no place. Leave it out."
        )
    asked = [*opening, user]
    # Mistral's templates put a space before a reply that their generation prompt lacks.
    prompt, before = render(asked, reply=True), f"{head}{_MESSAGE}{between}"
    lead = before[len(prompt) :] if before.startswith(prompt) else ""
    lead = lead if lead.isspace() else ""
    bridge = between.removesuffix(lead)
    past, turn = _earlier(tokenizer, render, opening, head, f"{between}{_AGAIN}{tail}")
    padded = render([*opening, _turn("user", f"\t{_MESSAGE}\t"), reply])
    end = _end(tokenizer, tail)
    return Frame(
        head=head,
        bridge=bridge,
        lead=lead,
        end=end,
        stops=tuple(text for text in reply_ends(tokenizer) if text != end),
        past=past,
        turn=turn,
        strips=f"\t{_MESSAGE}\t" not in padded,
        system=_own_system(tokenizer, render, head) if system is None else system,
        date=f"{_DATE:%Y-%m-%d}" if render(asked, reply=True, date=_OTHER_DATE) != prompt else None,
        thinks=prompt + lead != before or render(asked, reply=True, thinking=True) != prompt,
        jinja=jinja,
    )


# What transformers' `apply_chat_template` takes for itself, and what it gives templates.
_ARGUMENTS = frozenset(
    {
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation",
        "documents", "max_length", "messages", "padding", "return_assistant_tokens_mask",
        "return_dict", "return_tensors", "tokenize", "tokenizer_kwargs", "tools", "truncation",
    }
)  # fmt: skip


def _known_id(tokenizer: Tokenizer, text: str) -> int | None:
    """The id of the token of this text; None where there is none (not the unknown token's)."""
    found = tokenizer.convert_tokens_to_ids(text)
    known = found is not None and tokenizer.convert_ids_to_tokens(found) == text
    return int(found) if known else None


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _around(tokenizer: Tokenizer, text: str, *parts: str) -> list[str]:
    """What stands before, between and after parts of a rendered chat.

    Raises:
        InputError: they are not there in this order.
    """
    found = []
    for part in parts:
        before, there, text = text.partition(part)
        if not there:
            raise InputError(
                f"The chat template of {type(tokenizer).__name__} does not show a user's message "
                "and the assistant's reply in this order, so it cannot frame a task."
            )
        found.append(before)
    return [*found, text]


def _earlier(
    tokenizer: Tokenizer, render: Render, opening: list[Turn], head: str, last: str
) -> tuple[str, str] | tuple[None, None]:
    """How an exchange before the last one is shown; none where the others then change."""
    asked = (_turn("user", _MESSAGE), _turn("assistant", _REPLY))
    again = (_turn("user", _LATER), _turn("assistant", _AGAIN))
    try:
        text = render([*opening, *asked, *again])
        first, past, turn, rest = _around(tokenizer, text, _MESSAGE, _REPLY, _LATER)
    except InputError:
        return None, None
    return (past, turn) if (first, rest) == (head, last) else (None, None)


def _own_system(tokenizer: Tokenizer, render: Render, head: str) -> str:
    """The system prompt that the template shows by itself: what stands where another would."""
    chat = [_turn("system", _SYSTEM), _turn("user", _MESSAGE), _turn("assistant", _REPLY)]
    try:
        other, *_ = _around(tokenizer, render(chat), _MESSAGE, _REPLY)
    except InputError:  # it knows no system
        return ""
    before, there, after = other.partition(_SYSTEM)
    inside = head[len(before) : len(head) - len(after)]
    whole = before + inside + after == head and len(before) + len(after) <= len(head)
    return inside.strip() if there and after and whole else ""


def rendered(
    tokenizer: Tokenizer,
    turns: Sequence[Mapping[str, Any]],
    *,
    reply: bool = False,
    jinja: str = "",
    tools: Sequence[Any] | None = None,
    date: datetime = _DATE,
    thinking: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Messages (`role`, `content`) in the tokenizer's own chat template.

    Args:
        reply: end where the assistant's reply begins.
        jinja: in the place of the tokenizer's chat template.
        tools: that the assistant may call, as templates take them.
        date: what a template that asks is told to be today.
        thinking: let a template that knows a switch for thoughts open some.
        settings: others that a template knows, before those of here.

    Raises:
        InputError: the template cannot render them, or a setting is none of the template's.
    """
    own = {
        "date_string": f"{date:%d %b %Y}",  # of Llama 3
        "enable_thinking": thinking,  # of Qwen3, SmolLM3
        "thinking": thinking,  # of Granite, DeepSeek-V3.1
    }
    if taken := sorted(_ARGUMENTS & set(settings or ())):
        raise InputError(f"{taken[0]} is no setting of a chat template; leave it out")
    try:
        text = tokenizer.apply_chat_template(
            list(turns),
            tools=list(tools) if tools else None,
            chat_template=_held(jinja or tokenizer.get_chat_template(), date),
            tokenize=False,
            add_generation_prompt=reply,
            **{**own, **(settings or {})},
        )
    except Exception as error:  # templates are programs and raise what they like
        raise InputError(
            f"The chat template of {type(tokenizer).__name__} cannot render these messages "
            f"({', '.join(turn['role'] for turn in turns)}): {error}."
        ) from error
    return str(text)


def _held(template: str, date: datetime) -> str:
    """A template that is told this date instead of the clock's.

    transformers offers templates `strftime_now`, and takes no function in its place; a macro of
    that name goes before it.
    """
    if "strftime_now" not in template:
        return template
    told = {f"%{code}": date.strftime(f"%{code}") for code in _CODES}
    told |= {f"%-{code}": date.strftime(f"%{code}").lstrip("0") for code in "dmIj"}
    filters = "".join(f" | replace('{code}', '{text}')" for code, text in told.items())
    return (
        f"{{% macro strftime_now(format) -%}}{{{{ format{filters} }}}}{{%- endmacro %}}\n{template}"
    )


def _end(tokenizer: Tokenizer, tail: str) -> str:
    match = traits(tokenizer).special.match(tail.lstrip())
    if match is None and not tail.strip() and tokenizer.eos_token is not None:
        return str(tokenizer.eos_token)  # GLM's: in a chat the next turn's head ends a reply
    if match is None:
        raise InputError(
            f"The chat template of {type(tokenizer).__name__} does not end a reply with a special "
            f"token but with {tail!r}, so nothing would tell the model to stop."
        )
    return match.group()
