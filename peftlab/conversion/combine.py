"""Several adaptations as one: their changes of weights, or their logits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from peftlab.errors import InputError
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.combination import Combination, How
from peftlab.methods.mixture import Mixture, with_base

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Template


class Part(NamedTuple):
    """An adaptation, what it is called, and its weight; None is the bare base, in a mixture."""

    name: str
    adaptation: Adaptation | None
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
    adaptations = [part.adaptation for part in parts if part.adaptation is not None]
    if len(adaptations) < len(parts):
        raise InputError("the bare base changes no weights: it is a part of mixtures alone")
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
            for part, one in zip(parts, adaptations, strict=True)
            if one.template.beginning("row").identity() != own
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


def mixture(model: FrozenLM, parts: Sequence[Part]) -> Adaptation:
    """One adaptation whose logits are the weighted sum of those of others, each in its template.

    Raises:
        InputError: see `methods.mixture`; the bare base alone, or an adaptation of another base.
    """
    told = next((part.adaptation for part in parts if part.adaptation is not None), None)
    if told is None:
        raise InputError("a mixture of the bare base alone is the bare base: name an adaptation")
    adaptations = with_base([part.adaptation for part in parts], model)
    method = Mixture(
        of=tuple(part.name for part in parts),
        weights=tuple(part.weight for part in parts),
        parts=tuple(one.method for one in adaptations),
    )
    made = Adaptation(method, method.state_of(adaptations, model), told.template, base_of(model))
    made.edits(model)  # what cannot be mixed is refused now, and not where it is used
    return made
