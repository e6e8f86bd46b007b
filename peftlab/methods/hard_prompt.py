"""Hard prompt: a template round the input, written by hand. No parameters.

Zero-shot (the bare template and its cue; in a chat, a request in words), an instruction, and
few-shot exemplars (Brown et al. 2020, arXiv:2005.14165, section 2), in a chat as earlier exchanges,
chosen by seed or by similarity to the source (Liu et al. 2022, arXiv:2101.06804).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import Method, Shapes, State, register

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation
    from peftlab.tasks import Task, Template


@register("hard_prompt")
@dataclass(frozen=True, kw_only=True)
class HardPrompt(Method):
    """The frozen model, asked in words.

    Settings:
        instruction: none (bare template and cue), task (the task's own), any text, or usual: none,
            but in a chat the task's own or, where it brings none, one for its kind of task.
        shots: how many training examples are shown. select: the same ones for every source, drawn
            by seed, or the most similar of `pool` training examples.
    """

    trains: ClassVar = False

    instruction: str = "usual"
    shots: Annotated[int, Ge(0)] = 0
    select: Literal["random", "similar"] = "random"
    pool: Annotated[int, Ge(1)] = 200

    @property
    def seeded(self) -> bool:
        return self.shots > 0  # exemplars, or the pool that they are chosen from, are drawn

    def on(self, task: Task) -> HardPrompt:
        if not task.template.chat:
            return replace(self, instruction="none") if self.instruction == "usual" else self
        named = {"usual": task.instruction or task.request or "none", "task": task.instruction}
        return replace(self, instruction=named.get(self.instruction) or self.instruction)

    def check(self, shape: ModelShape) -> None:
        if self.pool < self.shots:
            raise InputError(
                f"hard_prompt: shots={self.shots} of a pool={self.pool} cannot be shown"
            )

    def stored(self, shape: ModelShape) -> Shapes:
        return {}

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        asked = self.on(task).instruction
        words = {"none": "", "task": task.instruction}.get(asked, asked)
        if self.instruction == "task" and not words:
            raise InputError(
                f"hard_prompt: the task {task.name} brings no instruction; give one in words"
            )
        if self.shots > len(task.train):
            raise InputError(
                f"hard_prompt: shots={self.shots}, but {task.name} has {len(task.train)} training "
                "examples"
            )
        wanted = self.pool if self.select == "similar" else self.shots
        order = torch.randperm(len(task.train), generator=rng).tolist()
        examples = [task.train[i] for i in order[: wanted if self.shots else 0]]
        exemplars = [example.to_dict() for example in examples]
        return State(text={"instruction": words, "exemplars": exemplars})

    def template(self, template: Template, state: State) -> Template:
        from peftlab.tasks import Example

        instruction, exemplars = (state.text.get(name) for name in ("instruction", "exemplars"))
        if not isinstance(instruction, str) or not isinstance(exemplars, list):
            raise InputError("hard_prompt: its instruction or its exemplars are missing")
        if instruction:
            template = template.with_instruction(instruction)
        if exemplars:
            shown = [Example.from_dict(exemplar) for exemplar in exemplars]
            template = template.with_exemplars(
                shown, self.shots if self.select == "similar" else None
            )
        return template

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        return Edits()


def unadapted(model: FrozenLM) -> Adaptation:
    """The frozen model itself: its prompts are its sources, with nothing round them."""
    from peftlab.methods.adaptation import Adaptation, base_of
    from peftlab.tasks import Template

    state = State(text={"instruction": "", "exemplars": []})
    return Adaptation(HardPrompt(), state, Template("{source}{target}"), base_of(model))
