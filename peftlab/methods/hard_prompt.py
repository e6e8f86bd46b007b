"""Hard prompt: a template round the input, written by hand. No parameters.

Zero-shot (the bare template and its cue; in a chat, a request in words), an instruction, and
few-shot exemplars (Brown et al. 2020, arXiv:2005.14165, section 2), in a chat as earlier exchanges,
chosen by seed or by similarity to the source (Liu et al. 2022, arXiv:2101.06804).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.files import digest
from peftlab.lazy import torch
from peftlab.methods.base import (
    Candidate,
    Examples,
    Method,
    SearchStep,
    Shapes,
    State,
    register,
)
from peftlab.methods.search.optimise import Optimise, begun, check_installed, searched
from peftlab.methods.search.transcript import OPENAI
from peftlab.options import Since

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation
    from peftlab.tasks import Task, Template


@register("hard_prompt")
@dataclass(frozen=True, kw_only=True)
class HardPrompt(Method):
    """The frozen model, asked in words.

    Settings:
        optimise: who looks for a better instruction, by the metric that methods are ranked by, on
            `examples` of validation: none; propose: `reflection_lm` writes `width` a step, given
            what was tried (Yang et al. 2024, arXiv:2309.03409); gepa: the library of that name, an
            iteration a step (Agrawal et al. 2025, arXiv:2507.19457). The search goes on for as many
            tokens as the same steps of training would read, those of `reflection_lm` included.
        reflection_lm: base (the frozen model itself), a folder of another, or openai/NAME, a model
            behind OPENAI_BASE_URL with OPENAI_API_KEY.
        instruction: none (bare template and cue), task (the task's own), any text, or usual: none,
            but in a chat the task's own or, where it brings none, one for its kind of task.
        shots: how many training examples are shown. select: the same ones for every source, drawn
            by seed, or the most similar of `pool` training examples. A search shows its author
            some of as many.
    """

    trains: ClassVar = False

    instruction: str = "usual"
    optimise: Annotated[Optimise, Since("none")] = "none"
    reflection_lm: Annotated[str, Since("base")] = "base"
    examples: Annotated[int, Ge(1), Since(32)] = 32
    width: Annotated[int, Ge(1), Since(4)] = 4
    shots: Annotated[int, Ge(0)] = 0
    select: Literal["random", "similar"] = "random"
    pool: Annotated[int, Ge(1)] = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimise != "none":
            for kind in ("searches", "judges"):
                object.__setattr__(self, kind, True)
        elif self.reflection_lm != "base":
            raise InputError(
                f"hard_prompt: reflection_lm={self.reflection_lm} writes instructions, and "
                "optimise=none asks for none; take optimise=propose or optimise=gepa"
            )
        if self.optimise == "gepa" and self.width != type(self).width:
            raise InputError(
                f"hard_prompt: width={self.width} is of optimise=propose; gepa asks for one "
                "instruction an iteration"
            )

    @property
    def seeded(self) -> bool:
        # Exemplars, or the pool that they are chosen from, are drawn; and so is what is written.
        return self.shots > 0 or self.searches

    def files(self) -> dict[str, str]:
        if self.reflection_lm == "base" or self.reflection_lm.startswith(OPENAI):
            return {}
        folder = Path(self.reflection_lm).expanduser()
        held = [*folder.glob("config.json"), *sorted(folder.glob("*.safetensors"))]
        if not held:
            raise InputError(
                f"hard_prompt: reflection_lm={self.reflection_lm} is no folder of a model; base, "
                "such a folder, or openai/NAME was expected"
            )
        return {f"reflection_lm.{file.name}": digest(file) for file in held}

    def on(self, task: Task) -> HardPrompt:
        if not task.template.chat:
            return replace(self, instruction="none") if self.instruction == "usual" else self
        named = {"usual": task.instruction or task.request or "none", "task": task.instruction}
        return replace(self, instruction=named.get(self.instruction) or self.instruction)

    def check(self, shape: ModelShape) -> None:
        check_installed(self.optimise, self.reflection_lm)
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
        order = torch.randperm(len(task.train), generator=rng)
        examples = [task.train[i] for i in order[: wanted if self.shots else 0].tolist()]
        exemplars = [example.to_dict() for example in examples]
        text = {"instruction": words, "exemplars": exemplars}
        if self.searches:
            seed = int(torch.randint(2**31, (1,), generator=rng))
            text |= begun(task, self.optimise, words, seed)
        return State(text=text)

    def update(self, state: State, examples: Examples) -> SearchStep:
        sizes = (self.pool, self.examples, self.width)
        saying = partial(self._saying, state)
        changed, told, ended = searched(
            examples, state, self.optimise, self.reflection_lm, sizes, saying
        )
        found = State(text={**state.text, **changed})
        template = self.template(examples.template, found)
        (loss,) = examples.losses([Candidate(Edits(), examples.encode(template))])
        return SearchStep(found, loss, told, ended)

    def _saying(self, state: State, instruction: str) -> State:
        return State(text={**self._used(state), "instruction": instruction})

    def _used(self, state: State) -> dict[str, Any]:
        return {name: state.text[name] for name in ("instruction", "exemplars")}

    def materialise(self, state: State, model: FrozenLM) -> State:
        return State(text=self._used(state)) if self.searches else state

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
