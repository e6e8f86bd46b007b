"""Whether a task's rows stand in a chat: decided where a base's tokenizer is there, or an adapter.

A base whose tokenizer has a chat template is an instruction model, and expects its rows in it.
"""

from __future__ import annotations

from dataclasses import replace

from peftlab.errors import InputError
from peftlab.tasks.chat import Frame, frame, has_template
from peftlab.tasks.conversation import PLAIN
from peftlab.tasks.task import Framing, Task
from peftlab.tasks.template import Template
from peftlab.tasks.tokens import Tokenizer


def decided(task: Task, tokenizer: Tokenizer) -> tuple[Template, str]:
    """The task's template as rows on this base have it, its frame rendered, and what to say of it.

    Raises:
        InputError: a chat is asked for, or a system prompt, and there is no chat template; or the
            chat template cannot frame a task.
    """
    template, asked = task.template, task.framing
    if asked is None:
        loose = template.chat and template.frame is None
        return template.framed(frame(tokenizer)) if loose else template, ""
    if asked.turns:
        return _of_turns(task, asked, tokenizer)
    chat = has_template(tokenizer) if asked.chat is None else asked.chat
    if not chat and asked.system is not None:
        raise InputError(
            f"system={asked.system!r:.60} stands in a chat, and the base's tokenizer "
            f"({type(tokenizer).__name__}) has no chat template. Leave it out."
        )
    if not chat:
        return template, ""
    try:
        found = frame(tokenizer, asked.system)
    except InputError as error:
        mend = " Without the chat: -o chat=false." if has_template(tokenizer) else ""
        raise InputError(f"{error}{mend}") from error
    replaced = "" if asked.system is not None or not found.system else ", -o system=… replaces it"
    note = (
        f"Rows stand in the chat template of the base's tokenizer ({found.told()}{replaced}); "
        "-o chat=false turns that off."
    )
    own = template.text != asked.bare  # another text was put in since the task was loaded
    return template.framed(found, template.text if own else asked.text), note


def _of_turns(task: Task, asked: Framing, tokenizer: Tokenizer) -> tuple[Template, str]:
    """The template of rows that are conversations."""
    plain = not has_template(tokenizer) if asked.chat is None else not asked.chat
    uses = any(row.tools for row in task.train) or None  # some have a template of their own for it
    jinja = PLAIN if plain else str(tokenizer.get_chat_template(tools=uses))
    found = frame(tokenizer, asked.system, jinja)
    where = "plain lines, one a turn" if plain else "the chat template of the base's tokenizer"
    return task.template.framed(found), f"Conversations stand in {where} ({found.told()})."


def as_trained(task: Task, template: Template) -> Task:
    """The task with the template of an adapter, which keeps the frame that it was trained in.

    Raises:
        InputError: the task was asked to be framed otherwise.
    """
    asked, own = task.framing, template.frame
    if asked is None:
        return task
    if asked.chat is not None and asked.chat != template.chat:
        raise InputError(
            f"chat={str(asked.chat).lower()} was asked for, and the adapter keeps its own "
            f"template, {'in' if template.chat else 'outside of'} a chat. Leave chat out."
        )
    if asked.system is not None and (own is None or asked.system != own.system):
        shown = "no chat" if own is None else f"the system prompt {own.system!r:.60}"
        raise InputError(
            f"system={asked.system!r:.60} was asked for, and the adapter keeps its own template, "
            f"with {shown}. Leave system out."
        )
    notes = (*task.notes, *([kept(own)] if own is not None else []))
    if template.joint and task.choices is None:
        notes = (
            *notes,
            "The adapter was trained to choose among options, and none are named here "
            "(-o choices=…): it writes its replies.",
        )
    return replace(task, template=template, framing=None, notes=notes)


def kept(own: Frame) -> str:
    """What is to be said of an adapter's frame."""
    return f"Rows stand in the chat that the adapter was trained in ({own.told()})."
