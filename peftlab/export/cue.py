"""Adaptations that begin at the cue, for formats that know that place by its tokens."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from peftlab.errors import InputError
from peftlab.tasks.cue import cue_ids
from peftlab.tasks.encode import last_place
from peftlab.tasks.example import BeginsNowhere

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation


def begins_at_cue(adaptation: Adaptation) -> bool:
    """Whether it leaves what comes before the cue as the base has it."""
    return adaptation.row_template.begin == "cue"


def invocation(adaptation: Adaptation, model: FrozenLM) -> list[int]:
    """The token ids that the changed part of every prompt begins with.

    Raises:
        InputError: there are none that all prompts have.
    """
    template = adaptation.row_template
    if template.loss == "replies":
        raise InputError(
            f"{adaptation.method.name} begins at the cue of a conversation's first reply, and "
            "PEFT's aLoRA at the last one; keep peftlab's own format"
        )
    ids = cue_ids(template, model.tokenizer)
    if not ids:
        raise InputError(
            f"{adaptation.method.name} begins at the cue, and prompts in {template.text!r:.100} "
            "have no tokens in common from there on, by which PEFT's aLoRA would know the place; "
            "keep peftlab's own format"
        )
    return list(ids)


def begun_again(adaptation: Adaptation, model: FrozenLM, replies: Iterable[str]) -> int:
    """How many replies hold the tokens once more, where PEFT would begin if it read them too."""
    ids = tuple(invocation(adaptation, model))
    template = adaptation.row_template
    rows = ((*ids, *template.target_ids(model.tokenizer, reply)) for reply in replies)
    return sum(last_place(row, ids) != 0 for row in rows)


def with_invocation(adaptation: Adaptation, model: FrozenLM, tokens: object) -> Adaptation:
    """An aLoRA beginning where PEFT begins it: at the last place of its tokens in a prompt.

    Where its template always goes on with them after the source that is its cue anyway, so the
    template stays as it is. Else it keeps the ids; where a prompt lacks them it does nothing.

    Raises:
        InputError: they are no token ids of this base.
    """
    wanted = tuple(tokens) if isinstance(tokens, list) else ()
    if not wanted or not all(type(one) is int and 0 <= one < model.shape.vocab for one in wanted):
        raise InputError(
            f"alora_invocation_tokens is {tokens!r:.60}; token ids from 0 to "
            f"{model.shape.vocab - 1:,} were expected"
        )
    template = adaptation.row_template
    cue = () if template.invocation else cue_ids(template, model.tokenizer)
    if cue[: len(wanted)] == wanted and last_place(cue, wanted) == 0:
        return adaptation
    warnings.warn(
        f"this aLoRA begins at the last place of {model.tokenizer.decode(wanted)!r} in a prompt, "
        f"and {template.text!r:.100} does not go on with that after its source; it does nothing "
        "where a prompt lacks these tokens. Give the template that it was trained with",
        BeginsNowhere,
        stacklevel=4,
    )
    template = replace(adaptation.template, begin="cue", infix=0, invocation=wanted)
    return replace(adaptation, template=template)
