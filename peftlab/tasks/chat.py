"""The frame that an instruction model's own chat template puts round a message and its reply."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from peftlab.errors import InputError
from peftlab.tasks.tokens import Tokenizer, traits

_MESSAGE, _REPLY = "\ue000message\ue001", "\ue000reply\ue001"  # private use: in nobody's text


@dataclass(frozen=True)
class Frame:
    """head + message + bridge + reply + the token `end`; head holds the BOS where there is one."""

    head: str
    bridge: str
    end: int


_KNOWN: WeakKeyDictionary[Tokenizer, Frame] = WeakKeyDictionary()


def frame(tokenizer: Tokenizer) -> Frame:
    """Return the chat frame of `tokenizer`.

    It is cut out of a rendered exchange, so that what precedes a reply in training and in
    generation is the same text. (Some templates, Qwen3's for one, render a finished reply with an
    empty block of thoughts that their generation prompt lacks; the frame always has it.)
    """
    if tokenizer not in _KNOWN:
        _KNOWN[tokenizer] = _cut(tokenizer)
    return _KNOWN[tokenizer]


def _cut(tokenizer: Tokenizer) -> Frame:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"The tokenizer {type(tokenizer).__name__} has no chat template; it belongs to a base "
            "model. Leave chat out, or load the instruction-tuned model's tokenizer."
        )
    exchange = [
        {"role": "user", "content": _MESSAGE},
        {"role": "assistant", "content": _REPLY},
    ]
    # Llama 3 prints today's date unless it is given: rows would differ from one day to the next.
    text = tokenizer.apply_chat_template(exchange, tokenize=False, date_string="26 Jul 2024")
    head, found_message, rest = text.partition(_MESSAGE)
    bridge, found_reply, tail = rest.partition(_REPLY)
    if not found_message or not found_reply:
        raise InputError(
            f"The chat template of {type(tokenizer).__name__} does not show a user's message and "
            "the assistant's reply in this order, so it cannot frame a task."
        )
    return Frame(head, bridge, _end(tokenizer, tail))


def _end(tokenizer: Tokenizer, tail: str) -> int:
    match = traits(tokenizer).special.match(tail.lstrip())
    if match is None:
        raise InputError(
            f"The chat template of {type(tokenizer).__name__} does not end a reply with a special "
            f"token but with {tail!r}, so nothing would tell the model to stop."
        )
    return int(tokenizer.convert_tokens_to_ids(match.group()))
