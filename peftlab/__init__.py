"""Adapt one frozen language model in many ways, compare them fairly, serve them together.

    import peftlab as pl

    model = pl.load("demo")
    task = pl.load_task("demo", limit=500)
    lora = pl.train(model, pl.LoRA(rank=8), task, steps=100)
    print(pl.evaluate(model, lora, task).scores)

Every name is imported when it is first used, so that importing peftlab costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from peftlab.version import __version__

if TYPE_CHECKING:
    from peftlab.api import combine as combine
    from peftlab.api import compare as compare
    from peftlab.api import convert as convert
    from peftlab.api import evaluate as evaluate
    from peftlab.api import generate as generate
    from peftlab.api import load as load
    from peftlab.api import load_adaptation as load_adaptation
    from peftlab.api import load_task as load_task
    from peftlab.api import mixture as mixture
    from peftlab.api import train as train
    from peftlab.edits import Edits as Edits
    from peftlab.errors import PeftlabError as PeftlabError
    from peftlab.frozen.model import FrozenLM as FrozenLM
    from peftlab.methods import Composed as Composed
    from peftlab.methods import Method as Method
    from peftlab.methods import register as register
    from peftlab.methods.adaptation import Adaptation as Adaptation
    from peftlab.methods.bitfit import BitFit as BitFit
    from peftlab.methods.bottleneck import BottleneckAdapter as BottleneckAdapter
    from peftlab.methods.combination import Combination as Combination
    from peftlab.methods.discrete_search import DiscreteSearch as DiscreteSearch
    from peftlab.methods.full import FullFineTuning as FullFineTuning
    from peftlab.methods.hard_prompt import HardPrompt as HardPrompt
    from peftlab.methods.ia3 import IA3 as IA3
    from peftlab.methods.intrinsic import Intrinsic as Intrinsic
    from peftlab.methods.last_k import LastK as LastK
    from peftlab.methods.layers import Layers as Layers
    from peftlab.methods.llama_adapter import LlamaAdapter as LlamaAdapter
    from peftlab.methods.lora import LoRA as LoRA
    from peftlab.methods.mixture import Mixture as Mixture
    from peftlab.methods.p_tuning import PTuning as PTuning
    from peftlab.methods.prefix_tuning import PrefixTuning as PrefixTuning
    from peftlab.methods.prompt_tuning import PromptTuning as PromptTuning
    from peftlab.metrics import score as score
    from peftlab.tasks import Decoding as Decoding
    from peftlab.tasks import Example as Example
    from peftlab.tasks import Task as Task
    from peftlab.tasks import Template as Template
    from peftlab.training import TrainConfig as TrainConfig

_PLACES = {
    "api": (
        "combine",
        "compare",
        "convert",
        "evaluate",
        "generate",
        "load",
        "load_adaptation",
        "load_task",
        "mixture",
        "train",
    ),
    "edits": ("Edits",),
    "errors": ("PeftlabError",),
    "frozen.model": ("FrozenLM",),
    "methods": ("Composed", "Method", "register"),
    "methods.adaptation": ("Adaptation",),
    "methods.combination": ("Combination",),
    "methods.mixture": ("Mixture",),
    "metrics": ("score",),
    "tasks": ("Decoding", "Example", "Task", "Template"),
    "training": ("TrainConfig",),
}
"""The public names by the modules that hold them; the registered methods' classes come besides."""

_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(f"peftlab.{_MODULES[name]}"), name)
    elif name.startswith("_") or name not in (classes := _method_classes()):
        raise AttributeError(f"module 'peftlab' has no attribute {name!r}")
    else:
        value = classes[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_method_classes()})


def _method_classes() -> dict[str, Any]:
    methods = import_module("peftlab.methods")
    return {cls.__name__: cls for cls in methods.REGISTRY.values()}


__all__ = ["__version__", *sorted(_MODULES)]
