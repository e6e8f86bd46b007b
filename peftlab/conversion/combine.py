"""Changes of weights of several adaptations as one adaptation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.combination import Combination, How

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Template


class Part(NamedTuple):
    """An adaptation, what it is called, and its weight."""

    name: str
    adaptation: Adaptation
    weight: float


class OtherTemplate(UserWarning):
    """What is combined was trained in several templates."""


def combine(
    model: FrozenLM,
    parts: Sequence[Part],
    how: How = "linear",
    *,
    density: float | None = None,
    seed: int = 0,
    template: Template | None = None,
) -> Adaptation:
    """One adaptation whose change of the weights is made of those of others.

    Args:
        template: of its rows; the first part's where None.

    Raises:
        InputError: see `methods.combination`.
    """
    adaptations = [part.adaptation for part in parts]
    method = Combination(
        of=tuple(part.name for part in parts),
        weights=tuple(part.weight for part in parts),
        how=how,
        density=density,
        seed=seed,
        parts=tuple(one.method for one in adaptations),
    )
    state = method.state_of(adaptations, model)
    if template is None:
        template = adaptations[0].template
        own = template.beginning("row").identity()
        others = [
            part.name
            for part in parts
            if part.adaptation.template.beginning("row").identity() != own
        ]
        if others:
            warnings.warn(
                f"{', '.join(others)} had other templates than {parts[0].name}; rows of the "
                f"combination stand in the latter's: {template.text!r}",
                OtherTemplate,
                stacklevel=2,
            )
    made = Adaptation(method, state, template, base_of(model))
    made.edits(model)  # what cannot be combined is refused now, and not where it is used
    return made
