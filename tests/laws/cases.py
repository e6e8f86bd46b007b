"""What the laws are held against: every registered method as it comes, and variants of it.

A new method is picked up from the registry. The variants come in addition: settings that lead
through other code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from peftlab.edits import Edits
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row
from peftlab.loss import training_row
from peftlab.methods import REGISTRY, Method, State, parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.tasks import Encoded, Example
from tests.laws import world

_VARIANTS = (
    "hard_prompt:instruction=task,shots=1",
    "hard_prompt:instruction=say it in one word,shots=1,select=similar,pool=6",
    "prompt_tuning:length=5,initialisation=vocabulary",
    "prompt_tuning:length=3,initialisation=labels",
    "prompt_tuning:length=1,initialisation=random",
    "p_tuning:length=4,encoder=mlp,placement=first",
    "p_tuning:length=5,encoder=none",
    "p_tuning:length=6,pattern={p:2}{source} in short{p:3} say{p:1}{target}",
    "prefix_tuning:length=5,reparametrisation=mlp,hidden=16",
    "prefix_tuning:length=4,initialisation=random",
    "llama_adapter:length=3,layers=3",
    "llama_adapter:length=3,layers=2,gate=layer,tanh=false",
    "bottleneck:kind=houlsby,bottleneck=4",
    "bottleneck:kind=lin,bottleneck=4",
    "bottleneck:kind=parallel,bottleneck=4",
    "bottleneck:kind=pfeiffer,bottleneck=4,train_norms=true",
    "lora:rank=4,targets=all-linear,alpha=8",
    "lora:rank=4,targets=q+v+o+down,layers=1,initialisation=gaussian,rslora=true",
    "lora:rank=4,targets=q+k+up,dora=true",
    "lora:rank=4,dropout=0.2,plus=4",
    "ia3:targets=q+k+v+o,feedforward=",
    "intrinsic:dimension=40,structure=true",
    "last_k:k=2,final_norm=true",
    "layers:head=true",
    "layers:head=true,final_norm=true",
    "layers:pattern=*.1.*weight",
    "layers:blocks=0+-1",
    "prefix_tuning:length=4+bottleneck:kind=parallel,bottleneck=4",
    "lora:rank=2,dropout=0.1+prompt_tuning:length=4",
    "prefix_tuning:length=3+llama_adapter:length=2+bitfit",
    "prefix_tuning:length=3+prefix_tuning:length=2",
    "hard_prompt:instruction=say it now+lora:rank=2",
)

CASES = (*sorted(REGISTRY), *_VARIANTS)
"""All of them, in the words of the command line."""


@cache
def method(case: str) -> Method:
    """The method of a case."""
    return parse_one(case)


TRAINED = tuple(case for case in CASES if method(case).trains)


@dataclass(frozen=True)
class Made:
    """A case on a model: its first state, and one moved away so that every tensor counts."""

    case: str
    model: FrozenLM
    method: Method
    first: State
    moved: State

    def edits(self, state: State, seed: int | None = None) -> Edits:
        """The edits of a state that is trained."""
        return self.method.edits(self.method.materialise(state, self.model), self.model, seed)

    def adaptation(self, state: State) -> Adaptation:
        """The state, ready for use."""
        with torch.no_grad():
            materialised = self.method.materialise(state, self.model)
        return Adaptation(self.method, materialised, world.task().template, base_of(self.model))

    def encoded(self) -> list[Encoded]:
        """The rows of the test split as this case's template writes them."""
        return [self.encode(e, t) for e, t in world.task().pairs("test")]

    def encode(
        self, example: Example, target: str | None, *, room: int | None = None, **changes: Any
    ) -> Encoded:
        """One row, in the template that the method makes of the task's with these changes."""
        changed = replace(world.task().template, **changes)
        template = self.method.template(changed, self.first)
        room = 96 - self.edits(self.first).prefix_length if room is None else room
        return template.encode(self.model.tokenizer, example, target, room)

    def rows(self, owner: int = 0, count: int = 3) -> list[Row]:
        """Rows whose logits are asked for from the first target token on."""
        return [training_row(encoded, owner) for encoded in self.encoded()[:count]]


@cache
def made(case: str, family: str, dtype: torch.dtype = torch.float32) -> Made:
    """A case on a tiny model of a family."""
    model, chosen = world.model(family, dtype), method(case)
    chosen.check(model.shape)
    first = chosen.init(model, world.task(), torch.Generator().manual_seed(3))
    return Made(case, model, chosen, first, _moved(first, world.spread(family)))


def _moved(state: State, spread: float) -> State:
    rng = torch.Generator().manual_seed(5)
    moved = {
        name: tensor + spread * torch.randn(tensor.shape, generator=rng)
        for name, tensor in state.tensors.items()
    }
    return State(moved, state.text)


def leaves(state: State) -> State:
    """A copy whose tensors are leaves that want gradients."""
    copied = {
        name: tensor.detach().clone().requires_grad_() for name, tensor in state.tensors.items()
    }
    return State(copied, state.text)
