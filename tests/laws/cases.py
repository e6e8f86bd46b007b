"""What the laws are held against: every registered method as it comes, and variants of it.

A new method is picked up from the registry. The variants come in addition: settings that lead
through other code.
"""

from __future__ import annotations

from functools import cache

import torch

from peftlab.edits import Edits
from peftlab.laws import Trial
from peftlab.methods import REGISTRY, Method, parse_one
from tests.laws import world

_VARIANTS = (
    "hard_prompt:instruction=task,shots=1",
    "hard_prompt:instruction=say it in one word,shots=1,select=similar,pool=6",
    "prompt_tuning:length=5,initialisation=vocabulary",
    "prompt_tuning:length=3,initialisation=labels",
    "prompt_tuning:length=1,initialisation=random",
    "p_tuning:length=4,encoder=mlp,placement=first",
    "p_tuning:length=5,encoder=none",
    "p_tuning:length=4,encoder=residual",
    "p_tuning:length=6,pattern={p:2}{source} in short{p:3} say{p:1}{target}",
    "prefix_tuning:length=5,reparametrisation=mlp,hidden=16",
    "prefix_tuning:length=4,initialisation=random",
    "prefix_tuning:length=4,reparametrisation=residual,hidden=16",
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
    "prefix_tuning:length=4,reparametrisation=none+bottleneck:kind=parallel,bottleneck=4",
    "lora:rank=2,dropout=0.1+prompt_tuning:length=4",
    "prefix_tuning:length=3+llama_adapter:length=2+bitfit",
    "prefix_tuning:length=3+prefix_tuning:length=2",
    "hard_prompt:instruction=say it now+lora:rank=2",
)
AT_CUE = (
    *(f"{name}:begin=cue" for name in sorted(REGISTRY) if hasattr(REGISTRY[name], "begin")),
    "lora:rank=4,dropout=0.2,begin=cue",
    "prefix_tuning:length=3,begin=cue+prompt_tuning:length=2,begin=cue+bitfit:begin=cue",
    "hard_prompt:instruction=say it now+lora:rank=2,begin=cue",
)

WHOLE_ROWS = (*sorted(REGISTRY), *_VARIANTS)
"""Those that change whole rows, in the words of the command line."""
CASES = (*WHOLE_ROWS, *AT_CUE)
"""All of them."""


@cache
def method(case: str) -> Method:
    """The method of a case."""
    return parse_one(case)


TRAINED = tuple(case for case in WHOLE_ROWS if method(case).trains)


@cache
def made(case: str, family: str, dtype: torch.dtype = torch.float32) -> Trial:
    """A case on a tiny model of a family, beside the bare base and one with every weight moved."""
    lm, chosen = world.model(family, dtype), method(case)
    chosen.check(lm.shape)
    return Trial(chosen, lm, world.task(), neighbours=_neighbours(family, dtype), tolerance=1e-5)


@cache
def _neighbours(family: str, dtype: torch.dtype) -> tuple[Edits, ...]:
    full = Trial(method("full"), world.model(family, dtype), world.task())
    return Edits(), full.edits(full.moved)
