"""One training loop for every method.

The settings are read by what never trains, so torch is imported with the rest alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from peftlab.training.config import TrainConfig

if TYPE_CHECKING:
    from peftlab.training.budget import Budget
    from peftlab.training.loop import train
    from peftlab.training.result import Diverged, Interrupted, Trained

_HOMES = {"Budget": "budget", "train": "loop", "Diverged": "result", "Interrupted": "result",
          "Trained": "result"}  # fmt: skip

__all__ = ["Budget", "Diverged", "Interrupted", "TrainConfig", "Trained", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
