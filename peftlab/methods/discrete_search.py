"""Discrete prompt search: hard prompt tuning. The found prompt is text, and nothing else.

Candidates of one step are owners of one batch that edit text alone, so what is scored is what will
be used: the row as the tokenizer makes it of the instruction. The strategies, with their papers,
are the files of `peftlab.methods.search`. The training loop keeps the prompt with the lowest
validation loss, its start included, and every step's prompt stands in `metrics.jsonl`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import Examples, Method, SearchStep, Shapes, State, register
from peftlab.methods.prompt_tuning import fits_context
from peftlab.methods.search.gradient_guided import autoprompt, gcg
from peftlab.methods.search.pez import pez
from peftlab.methods.search.phrases import phrases
from peftlab.methods.search.prompt import Frame, Ids, Prompt, not_text, settled
from peftlab.methods.soft_prompt import start_ids

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Task, Template

_DEFAULT_LENGTH = 20
_TRIES = 100


@register("discrete_search")
@dataclass(frozen=True, kw_only=True)
class DiscreteSearch(Method):
    """An instruction that is searched for, token by token or phrase by phrase.

    Settings:
        strategy: gcg (any slot, by gradient), autoprompt (one slot a step, by gradient), pez (a
            continuous prompt, projected), phrases (without gradients; the result can be read).
        start: instruction (`text`, else the task's own, else the first training example), or
            vocabulary (sampled tokens).
        length: tokens of the prompt; None takes the instruction's own number, else 20. The start is
            cut or repeated to it. For phrases it is the most; None allows twice the start's.
        width: candidates a step. top_k: tokens a slot that gcg draws them from. (The paper's 512
            and 256 belong together: few candidates should come from the few best tokens.)
        rate: of pez, relative to the size of the prompt's vectors.
    """

    trains: ClassVar = False
    searches: ClassVar = True

    strategy: Literal["gcg", "autoprompt", "pez", "phrases"] = "gcg"
    start: Literal["instruction", "vocabulary"] = "instruction"
    text: str = ""
    length: Annotated[int | None, Ge(1)] = None
    width: Annotated[int, Ge(1)] = 16
    top_k: Annotated[int, Ge(1)] = 32
    rate: Annotated[float, Gt(0)] = 0.3

    def check(self, shape: ModelShape) -> None:
        if self.length is not None:
            fits_context(self.name, self.length, shape)
        if self.strategy == "phrases" and self.start == "vocabulary":
            raise InputError(
                f"{self.name}: phrases are edited in words, and sampled tokens are none; "
                "take start=instruction, or another strategy"
            )

    def stored(self, shape: ModelShape) -> Shapes:
        return {}

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        words = self._words(task)
        own = len(model.tokenizer.encode(words, add_special_tokens=False))
        if self.strategy == "phrases":
            return State(
                text={"instruction": words, "longest": self.length or 2 * own, "removed": []}
            )
        named = self.start == "instruction" and bool(self.text or task.instruction)
        length = self.length or (own if named else _DEFAULT_LENGTH)
        example, target = task.pairs("train")[0]

        def encode(template: Template, _: int | None) -> list[Encoded]:
            return [template.encode(model.tokenizer, example, target, model.shape.context)]

        def survivor(ids: Ids) -> Prompt | None:
            return settled(encode, task.template, model.tokenizer, ids)

        if self.start == "vocabulary":
            return _text(_sampled(length, model, rng, survivor))
        ids = tuple(start_ids("text", length, words, model, task, rng))
        # A last token that would merge with what follows it in the row is left out.
        prompt = next(filter(None, (survivor(ids[:n]) for n in range(len(ids), 0, -1))), None)
        if prompt is None:
            raise InputError(f"{self.name}: no part of {words!r} keeps its tokens inside a row")
        return _text(prompt)

    def update(self, state: State, examples: Examples) -> SearchStep:
        tokenizer = examples.model.tokenizer
        if self.strategy == "phrases":
            text, removed = state.text["instruction"], state.text["removed"]
            text, loss, removed, notes = phrases(
                examples, text, removed, self.width, state.text["longest"]
            )
            changed = {**state.text, "instruction": text, "removed": removed}
            return SearchStep(State(text=changed), loss, {"instruction": text, **notes})
        prompt = Prompt(tuple(state.text["ids"]), state.text["instruction"])
        frame = Frame(examples.encode, examples.template, tokenizer, prompt)
        memory = dict(state.tensors)
        if self.strategy == "pez":
            prompt, loss, memory, notes = pez(examples, frame, prompt, memory, self.rate)
        elif self.strategy == "autoprompt":
            prompt, loss, notes = autoprompt(examples, frame, prompt, self.width)
        else:
            prompt, loss, notes = gcg(examples, frame, prompt, self.width, self.top_k)
        return SearchStep(_text(prompt, memory), loss, {"instruction": prompt.text, **notes})

    def materialise(self, state: State, model: FrozenLM) -> State:
        return State(text={"instruction": state.text["instruction"]})

    def template(self, template: Template, state: State) -> Template:
        if not isinstance(instruction := state.text.get("instruction"), str):
            raise InputError(f"{self.name}: the instruction that was found is missing")
        return template.with_instruction(instruction)

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        return Edits()

    def _words(self, task: Task) -> str:
        first = task.train[0]
        return (self.text or task.instruction or f"{first.source} {first.targets[0]}").strip()


def _text(prompt: Prompt, memory: dict[str, torch.Tensor] | None = None) -> State:
    return State(memory or {}, {"instruction": prompt.text, "ids": list(prompt.ids)})


def _sampled(length: int, model: FrozenLM, rng: torch.Generator, survivor: Any) -> Prompt:
    """A prompt of sampled tokens that survives; neighbours that merge make room for others."""
    excluded = set(not_text(model.tokenizer, model.shape.vocab))
    allowed = torch.tensor([i for i in range(model.shape.vocab) if i not in excluded])
    ids: list[int] = []
    for _ in range(_TRIES):
        drawn = allowed[torch.randint(len(allowed), (length,), generator=rng)].tolist()
        text = model.tokenizer.decode([*ids, *drawn], clean_up_tokenization_spaces=False)
        ids = model.tokenizer.encode(text, add_special_tokens=False)[:length]
        prompt: Prompt | None = survivor(tuple(ids)) if len(ids) == length else None
        if prompt is not None:
            return prompt
        ids = ids[: length // 2]
    raise InputError(f"no {length} sampled tokens keep their form as text; take start=instruction")
