"""Adaptations that begin at the cue, for formats that know that place by its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftlab.errors import InputError
from peftlab.tasks.cue import cue_ids

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation
    from peftlab.tasks import Template


def begins_at_cue(adaptation: Adaptation) -> bool:
    """Whether it leaves what comes before the cue as the base has it."""
    return _template(adaptation).begin == "cue"


def invocation(adaptation: Adaptation, model: FrozenLM) -> list[int]:
    """The token ids that the changed part of every prompt begins with.

    Raises:
        InputError: there are none that all prompts have.
    """
    template = _template(adaptation)
    ids = cue_ids(template, model.tokenizer)
    if not ids:
        raise InputError(
            f"{adaptation.method.name} begins at the cue, and prompts in {template.text!r:.100} "
            "have no tokens in common from there on, by which PEFT's aLoRA would know the place; "
            "keep peftlab's own format"
        )
    return list(ids)


def check_invocation(adaptation: Adaptation, model: FrozenLM, tokens: object) -> None:
    """Hold an aLoRA's tokens against what its template goes on with after the source.

    PEFT begins at the last place of its tokens and does nothing where they are absent; a template
    that goes on with them always begins there.

    Raises:
        InputError: they are another text.
    """
    template = _template(adaptation)
    own = cue_ids(template, model.tokenizer)
    wanted = tuple(tokens) if isinstance(tokens, list) else ()
    known = all(type(one) is int and 0 <= one < model.shape.vocab for one in wanted)
    if not wanted or not known or own[: len(wanted)] != wanted:
        words = repr(model.tokenizer.decode(wanted)) if known else f"{tokens!r:.60}"
        raise InputError(
            f"this aLoRA begins at {words}, and {template.text!r:.100} does not go on with that "
            "after its source: give the template that it was trained with"
        )


def _template(adaptation: Adaptation) -> Template:
    return adaptation.method.template(adaptation.template, adaptation.state)
