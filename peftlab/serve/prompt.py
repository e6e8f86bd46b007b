"""What can be asked: a source for the adapter's own template, tokens as they stand, or a chat.

Tokens, and the chat of an adapter whose template is nothing but the source, are placed right after
the pseudo tokens that the template begins with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftlab.errors import InputError
from peftlab.tasks import Encoded, Example, Template
from peftlab.tasks.chat import frame, has_template
from peftlab.tasks.conversation import rendered_turns
from peftlab.tasks.cue import cue_ids
from peftlab.tasks.encode import last_place
from peftlab.tasks.example import Message
from peftlab.tasks.markup import Pseudo, Slot
from peftlab.tasks.tokens import traits

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

_ANY_LENGTH = 1 << 30
_PROBED = 16  # characters for each token that a prompt may have; text has about four


@dataclass(frozen=True)
class Chat:
    """Messages, or pairs of role and content, the last one to be answered.

    An adapter that was trained on a template with words of its own takes one user's message, as its
    source; the others take any conversation, in the tokenizer's chat template.

    settings: of that template; an adapter that keeps the frame of its training takes none. tools:
    that may be called, as JSON.
    """

    turns: tuple[Message | tuple[str, str], ...]
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tools: str = ""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns as messages."""
        return tuple(one if isinstance(one, Message) else Message(*one) for one in self.turns)


Source = str | Example | tuple[int, ...] | Chat


def check_source(source: Source) -> None:
    """Refuse what is no question.

    Raises:
        InputError: it is empty, or no Unicode.
    """
    if isinstance(source, tuple):
        empty = not source
    else:
        texts = _texts(source)
        _check_unicode(texts)
        last = source.messages[-1] if isinstance(source, Chat) and source.turns else None
        answers = last is not None and last.role == "tool"  # which may have nothing to say
        empty = not answers and not any(text.strip() for text in texts[:1])
    if empty:
        raise InputError("the prompt is empty; a text was expected")


def size(source: Source) -> int:
    """Characters of what is asked, or tokens."""
    return len(source) if isinstance(source, tuple) else sum(map(len, _texts(source)))


def part_of_far_too_long(template: Template, model: FrozenLM, text: str, most: int) -> str | None:
    """The end of a text that would be kept, where that alone has twice `most` tokens; else None.

    What lies beyond decides nothing any more, and to encode all of a megabyte takes seconds, and
    memory of hundreds of times its length.
    """
    length = _PROBED * max(1, most)
    if len(text) <= length:
        return None
    part = text[:length] if template.truncate == "end" else text[-length:]
    row = model.tokenizer(part, add_special_tokens=False, verbose=False)
    return part if len(row["input_ids"]) > 2 * most else None


def longest_text(template: Template, source: Source) -> str:
    """The longest text that a prompt shows whole."""
    if isinstance(source, Chat):
        return max(_texts(source), key=len, default="")
    made = example(source)
    return made.source if made is not None and template.markup.has("source") else ""


def _texts(source: str | Example | Chat) -> list[str]:
    """All text that is asked, the source or the last message first."""
    if isinstance(source, Chat):
        texts = [one.content for one in reversed(source.messages)]
        beside = (text for one in source.messages for text in (one.calls, one.name, one.answers))
        texts += filter(None, beside)
        texts += [source.tools] if source.tools else []
        return texts + _leaves(source.settings)
    if isinstance(source, str):
        return [source]
    return [*reversed(source.texts), *source.fields.values()]


def _leaves(value: Any) -> list[str]:
    """All texts in a JSON value, names included, however deep."""
    texts, left = list[str](), [value]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one
        elif isinstance(one, str):
            texts.append(one)
    return texts


def _check_unicode(texts: list[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"the prompt holds half of a character at position {error.start:,} (a lone "
                "surrogate); Unicode text was expected"
            ) from error


def example(source: Source) -> Example | None:
    """The source as an example for a template; None for tokens and chats."""
    if isinstance(source, str):
        return Example(source, ())
    return source if isinstance(source, Example) else None


def encode(template: Template, model: FrozenLM, source: Source) -> Encoded:
    """The whole prompt, whatever its length.

    Raises:
        InputError: tokens that the model does not know, a chat that this template or this tokenizer
            cannot render, a column that the template names and the example lacks.
    """
    made = example(source)
    if made is not None:
        return template.encode(model.tokenizer, made, None, _ANY_LENGTH)
    row, *others = [_encode_asked(one, model, source) for one in (template.alone, *template.beside)]
    return row.with_beside(others)


def _encode_asked(template: Template, model: FrozenLM, source: Source) -> Encoded:
    """Of tokens, or of a chat."""
    if isinstance(source, tuple):
        return _placed(template, _known(source, model.shape.vocab), model.tokenizer)
    assert isinstance(source, Chat)
    return _encode_chat(template, model.tokenizer, source)


def ends(template: Template, tokenizer: Any, source: Source) -> tuple[int, ...]:
    """The tokens that end a reply: a conversation's own, or the template's."""
    talk = isinstance(source, Chat) and _as_source(template, source) is None
    return frame(tokenizer).end_ids(tokenizer) if talk else template.end_ids(tokenizer)


def _encode_chat(template: Template, tokenizer: Any, chat: Chat) -> Encoded:
    if template.frame is None:
        frame(tokenizer)  # refuses a tokenizer without a chat template
    made = _as_source(template, chat)
    if chat.settings and (made is not None or template.frame is not None):
        raise InputError(
            "this adapter keeps the chat frame that it was trained in, and chat_template_kwargs "
            "would make another of it; leave them out"
        )
    bare_frame = template.frame is not None and not template.frame.jinja
    if chat.tools and (bare_frame or (made is not None and not made.tools)):
        raise InputError("this adapter was trained without tools; leave tools out")
    if made is not None:
        return template.encode(tokenizer, made, None, _ANY_LENGTH)
    for content in _texts(chat):
        if match := traits(tokenizer).special.search(content):
            raise InputError(
                f"a message holds the text {match.group()!r}, which is a special token of this "
                "tokenizer; take it out"
            )
    text = _rendered(template, tokenizer, chat)
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return _placed(template, ids, tokenizer)


def _rendered(template: Template, tokenizer: Any, chat: Chat) -> str:
    """The chat in the tokenizer's template.

    Raises:
        InputError: that does not show the tools, or the calls of them.
    """
    turns = _conversation(template, tokenizer, chat)

    def render(turns: Sequence[Mapping[str, Any]], tools: str) -> str:
        told = json.loads(tools) if tools else None
        return rendered_turns(tokenizer, turns, reply=True, settings=chat.settings, tools=told)

    text = render(turns, chat.tools)
    if chat.tools and text == render(turns, ""):
        raise InputError("this base's chat template does not show tools; leave tools out")
    silent = [{k: v for k, v in turn.items() if k != "tool_calls"} for turn in turns]
    if silent != turns and text == render(silent, chat.tools):
        raise InputError("this base's chat template does not show tool_calls; leave them out")
    return text


def _as_source(template: Template, chat: Chat) -> Example | None:
    """What is asked, where that stands in the adapter's template as in training: one message, or
    any conversation where it was trained on such.

    Raises:
        InputError: the template has words of its own, and there are other messages.
    """
    if template.frame is not None and template.frame.jinja:
        *before, last = chat.messages
        return Example(last.content, (), turns=tuple(before), role=last.role, tools=chat.tools)
    first, *others = chat.messages
    single = first.role == "user" and not others
    if _has_words(template) and not single:
        raise InputError(
            f"this adapter was trained on {template.text!r}, which has a place for one source: "
            "one message, of the role user, was expected"
        )
    return (
        Example(first.content, ()) if single and (template.chat or _has_words(template)) else None
    )


def _conversation(template: Template, tokenizer: Any, chat: Chat) -> list[dict[str, Any]]:
    """The turns as the tokenizer's chat template takes them, under the adapter's system prompt.

    Raises:
        InputError: that template does not make the frame that the adapter was trained in.
    """
    turns = [one.asked() for one in chat.messages]
    own = template.frame
    if own is None or (has_template(tokenizer) and frame(tokenizer).shows(own)):
        return turns
    if not has_template(tokenizer) or not frame(tokenizer, own.system).shows(own):
        raise InputError(
            "this adapter keeps the chat that it was trained in, which is not what the tokenizer's "
            "chat template makes now: one message, of the role user, was expected"
        )
    opening = {"role": "system", "content": own.system}
    return turns if turns[0]["role"] == "system" else [opening, *turns]


def _has_words(template: Template) -> bool:
    """Whether the template shows more than the source."""
    shown = [part for part in template.markup.context if not isinstance(part, Pseudo)]
    silent = [Slot("instruction")] * (not template.instruction)
    silent += [Slot("exemplars")] * (not template.exemplars)
    silent.append(Slot("begin"))
    return [part for part in shown if part not in silent] != [Slot("source")]


def _known(ids: tuple[int, ...], vocab: int) -> tuple[int, ...]:
    for place, token in enumerate(ids):
        if not 0 <= token < vocab:
            raise InputError(
                f"token {place} of the prompt is {token}; 0 to {vocab - 1:,} was expected"
            )
    return ids


def _placed(template: Template, ids: tuple[int, ...], tokenizer: Any) -> Encoded:
    """Tokens after the pseudo tokens at the template's beginning, or round those at the cue."""
    context = template.markup.context
    lead = context[0].count if context and isinstance(context[0], Pseudo) else 0
    if template.begin == "cue" and not template.markup.pseudo_tokens:
        return _at_cue(template, ids, tokenizer)
    if template.pseudo_tokens > lead:
        raise InputError(
            f"this adapter has pseudo tokens inside its template {template.text!r}, so tokens or a "
            "conversation cannot take its place; send a text"
        )
    row = (*(-(j + 1) for j in range(lead)), *ids)
    return Encoded(row, ())


def _at_cue(template: Template, ids: tuple[int, ...], tokenizer: Any) -> Encoded:
    """The adapter begins at the last place of the tokens that it began at in training."""
    if template.invocation:
        return template.row(ids, 0)
    if template.loss == "replies":
        raise InputError(
            "this adapter begins at the cue of a conversation's first reply, which tokens do not "
            "tell: send the conversation"
        )
    cue = cue_ids(template, tokenizer)
    source_is_last = not template.chat and template.markup.context[-1] == Slot("source")
    begin = len(ids) if source_is_last else last_place(ids, cue) if cue else None
    if begin is None:
        words = f"at {tokenizer.decode(cue)!r}" if cue else f"after the source of {template.text!r}"
        raise InputError(
            f"this adapter begins {words}, which the prompt's tokens do not hold; send a text, or "
            "tokens with these words"
        )
    return template.row(ids, begin)
