"""The frame that an instruction model's own chat template puts round a message and its reply."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from peftlab.errors import InputError
from peftlab.tasks.tokens import Tokenizer, check_embedded, traits

_MESSAGE, _REPLY = "\ue000message\ue001", "\ue000reply\ue001"  # private use: in nobody's text


@dataclass(frozen=True)
class Frame:
    """head + message + bridge + lead + reply + the token `end`.

    head holds the BOS where the template writes one; lead is white space that belongs to the reply.
    """

    head: str
    bridge: str
    lead: str
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
    user = {"role": "user", "content": _MESSAGE}
    text = rendered(tokenizer, [user, {"role": "assistant", "content": _REPLY}], False)
    before, found_reply, tail = text.partition(_REPLY)
    head, found_message, bridge = before.partition(_MESSAGE)
    if not found_message or not found_reply:
        raise InputError(
            f"The chat template of {type(tokenizer).__name__} does not show a user's message and "
            "the assistant's reply in this order, so it cannot frame a task."
        )
    # Mistral's templates put a space before a reply that their generation prompt lacks.
    prompt = rendered(tokenizer, [user], True)
    lead = before[len(prompt) :] if before.startswith(prompt) else ""
    if not lead.isspace():
        lead = ""
    return Frame(head, bridge.removesuffix(lead), lead, _end(tokenizer, tail))


def rendered(tokenizer: Tokenizer, turns: list[dict[str, str]], generation: bool) -> str:
    """Return messages (`role`, `content`) in the tokenizer's own chat template.

    generation: end where the assistant's reply begins. Raises `InputError` where the template
    cannot render them.
    """
    try:
        text = tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=generation,
            # Llama 3 prints today's date unless one is given: rows would change from day to day.
            date_string="26 Jul 2024",
        )
    except Exception as error:  # templates are programs and raise what they like
        raise InputError(
            f"The chat template of {type(tokenizer).__name__} cannot render these messages "
            f"({', '.join(turn['role'] for turn in turns)}): {error}."
        ) from error
    return str(text)


def _end(tokenizer: Tokenizer, tail: str) -> int:
    match = traits(tokenizer).special.match(tail.lstrip())
    if match is None:
        raise InputError(
            f"The chat template of {type(tokenizer).__name__} does not end a reply with a special "
            f"token but with {tail!r}, so nothing would tell the model to stop."
        )
    end = int(tokenizer.convert_tokens_to_ids(match.group()))
    check_embedded(tokenizer, [end], "The end of every reply")
    return end
