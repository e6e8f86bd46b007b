"""Prompt tuning: trained vectors before the input.

Lester et al. 2021, arXiv:2104.08691, section 2. A prompt learnt on one task can be the
start for another: Vu et al. 2022, arXiv:2110.07904, section 2.2. As in PEFT they come before the
beginning-of-sequence token. They do not depend on the input, so the frozen model runs them once a
batch and every row attends to what they left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from peftlab.bases.scale import Scale
from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Shapes, State, register
from peftlab.methods.soft_prompt import Start, saved_digest, saved_prompt, start_vectors
from peftlab.options import Formerly

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task, Template


@register("prompt_tuning")
@dataclass(frozen=True, kw_only=True)
class PromptTuning(BeginningMethod):
    """`length` vectors of the embedding space.

    Settings:
        length: by default 100, but at most a fifth of the base's context.
        initialisation: text (the task's instruction, or `text`), vocabulary (sampled tokens),
            labels (class labels), random (normal, at the embedding table's own scale).
        prompt: instead, a folder with an adaptation whose soft prompt, of the same length and for
            the same base, is the start.
    """

    sites: ClassVar = ("embeddings",)
    size: ClassVar = "length"

    length: Annotated[int | None, Ge(1), Formerly(20)] = None
    initialisation: Start = "text"
    text: str = ""
    prompt: str = ""

    @property
    def learning_rate(self) -> float:
        return 7e-2

    def rate_on(self, scale: Scale) -> float:
        return self.learning_rate * scale.spread

    def check(self, shape: ModelShape) -> None:
        fits_context(self.name, prompt_length(self.length, shape), shape)

    def stored(self, shape: ModelShape) -> Shapes:
        return {"prompt": (prompt_length(self.length, shape), shape.hidden)}

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        length = prompt_length(self.length, model.shape)
        if self.prompt:
            return State({"prompt": saved_prompt(Path(self.prompt), length, model)})
        vectors = start_vectors(self.initialisation, length, self.text, model, task, rng)
        return State({"prompt": vectors})

    def files(self) -> dict[str, str]:
        return {"prompt": saved_digest(Path(self.prompt))} if self.prompt else {}

    def template(self, template: Template, state: State) -> Template:
        return template.with_prompt(len(state.tensors["prompt"]), self.begin)

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        return Edits(embeddings=state.tensors["prompt"], begin=self.begin)


def prompt_length(given: int | None, shape: ModelShape) -> int:
    """The vectors of a soft prompt: as many as the paper's, where none are named.

    Prompts of 100 learn most in a few hundred steps (docs/methods.md); a short context keeps four
    fifths for the text.
    """
    return given or max(1, min(100, shape.context // 5))


def fits_context(name: str, length: int, shape: ModelShape) -> None:
    """Refuse a prompt that leaves no room for text.

    Raises:
        InputError: with the context's length.
    """
    if length >= shape.context:
        raise InputError(
            f"{name}: length={length} leaves no room for text in this model's context of "
            f"{shape.context}"
        )
