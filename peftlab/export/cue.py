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


def _template(adaptation: Adaptation) -> Template:
    return adaptation.method.template(adaptation.template, adaptation.state)
