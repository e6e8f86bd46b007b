"""Several adaptations of any methods as one at the logits: each reads the row in its own way.

Products of experts (Hinton 2002), DExperts (Liu et al. 2021, arXiv:2105.03023, equation 1),
contrastive decoding (Li et al. 2023, arXiv:2210.15097): the next token is drawn from the softmax of
the weighted sum of their logits. Each expert has rows of its own in the batch, in its own template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.files import digest
from peftlab.methods.adaptation import DESCRIPTION, Adaptation
from peftlab.methods.base import State, derived
from peftlab.methods.composed import sites_of, split_state
from peftlab.methods.hard_prompt import HardPrompt, unadapted
from peftlab.methods.made_of import MadeOf
from peftlab.tasks import Template

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task
    from peftlab.tasks.example import Begin

BASE = "base"
"""The name of the bare base among the adaptations; it reads as the first of the others does."""
_TEMPLATES = "templates"
_WORD = "7 zebras"  # any target: what is compared is how templates take it apart


@derived("mixture")
@dataclass(frozen=True, kw_only=True)
class Mixture(MadeOf):
    """Adaptations whose scores of each next token are added; it trains nothing.

    Settings:
        of: folders of adaptations or runs; `base` is the bare base. weights: of each one's logits.
            They need not sum to one: a sum above one sharpens, a negative weight holds one against
            the others, as of=runs/a+base,weights=1.5+-0.5 does.
        parts: the methods of these, as the folders have them.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(isinstance(part, Mixture) for part in self.parts):
            raise InputError("mixture: one of its parts is a mixture; name what that is made of")
        if all(name == BASE for name in self.of):
            raise InputError("mixture: of names the bare base alone; an adaptation was expected")

    @property
    def sites(self) -> tuple[str, ...]:  # type: ignore[override]
        return sites_of(self.parts)

    @property
    def begins_at_cue(self) -> bool:
        own = [part for name, part in zip(self.of, self.parts, strict=True) if name != BASE]
        return all(part.begins_at_cue for part in own)

    def on(self, task: Task) -> Mixture:
        if (beams := task.decoding.beams) > 1:
            raise InputError(
                f"mixture: {task.name} decodes with {beams} beams, and a mixture has none; compare "
                "it on a task that decodes greedily"
            )
        return self

    def state_of(self, adaptations: Sequence[Adaptation], model: FrozenLM) -> State:
        """The state of these parts, their templates with it."""
        state = super().state_of(adaptations, model)
        words = [one.row_template.to_dict() for one in adaptations]
        return State(state.tensors, {**state.text, _TEMPLATES: words})

    def template(self, template: Template, state: State) -> Template:
        """The first expert's, with the others' beside it; as many source tokens as asked."""
        most = template.source_tokens
        own = [
            one if most is None else replace(one, source_tokens=most)
            for one in self._templates(state)
        ]
        return replace(own[0], beside=tuple(own[1:]))

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        templates = self._templates(state)
        self._check(templates, model)
        pairs = zip(templates, split_state(self.parts, state), strict=True)
        each = [replace(part.edits(own, model), template=text) for text, (part, own) in pairs]
        placed = [
            replace(one, begin=text.begin) if one.changes_nothing else one
            for one, text in zip(each, templates, strict=True)
        ]
        begin: Begin = "cue" if all(one.begin == "cue" for one in placed) else "row"
        return Edits(begin=begin, experts=tuple(zip(self.weights, placed, strict=True)))

    def _templates(self, state: State) -> list[Template]:
        found = state.text.get(_TEMPLATES)
        stored = found if isinstance(found, list | tuple) else []
        if len(stored) != len(self.parts) or not all(isinstance(one, Mapping) for one in stored):
            raise InputError(
                f"this mixture of {len(self.parts)} is damaged: as many templates were expected"
            )
        return [Template.from_dict(one) for one in stored]

    def _check(self, templates: Sequence[Template], model: FrozenLM) -> None:
        """Refuse experts that would score different tokens at one place."""
        first, *others = [
            (one.target_ids(model.tokenizer, _WORD), one.end_ids(model.tokenizer))
            for one in templates
        ]
        for name, own in zip(self.of[1:], others, strict=True):
            if own != first:
                raise InputError(
                    f"mixture: {name} and {self.of[0]} begin or end a target in other tokens, so "
                    "their scores are not of the same; mix adaptations whose templates end alike"
                )

    def files(self) -> dict[str, str]:
        """The descriptions too: they hold templates, words and exemplars."""
        words = {f"{n}/{DESCRIPTION}": digest(f / DESCRIPTION) for n, f in self._folders().items()}
        return super().files() | words

    def _is_one(self, name: str) -> bool:
        return name == BASE or super()._is_one(name)

    def _folders(self) -> dict[str, Path]:
        return {name: folder for name, folder in super()._folders().items() if name != BASE}

    def _loaded(self, model: FrozenLM) -> list[Adaptation]:
        folders = self._folders()
        loaded = {name: Adaptation.load(folder, model) for name, folder in folders.items()}
        return with_base([loaded.get(name) for name in self.of], model)

    def _described(self, name: str) -> Mapping[str, Any]:
        return {"method": HardPrompt.name} if name == BASE else super()._described(name)


def with_base(adaptations: Sequence[Adaptation | None], model: FrozenLM) -> list[Adaptation]:
    """The adaptations, and the bare base for None, in the task's template of the first of them."""
    told = [one for one in adaptations if one is not None]
    begin: Begin = "cue" if all(one.row_template.begin == "cue" for one in told) else "row"
    template = told[0].template.beginning("row").beginning(begin)
    bare = replace(unadapted(model), template=template)
    return [bare if one is None else one for one in adaptations]
