"""One training loop for every method.

The settings are read by what never trains, so torch is imported with the rest alone.
"""

from typing import TYPE_CHECKING

from peftlab.lazy import names_of

if TYPE_CHECKING:
    from peftlab.training.budget import Budget
    from peftlab.training.config import TrainConfig
    from peftlab.training.loop import train
    from peftlab.training.result import Diverged, Interrupted, Trained

__getattr__ = names_of(
    __name__,
    {
        "Budget": "budget",
        "Diverged": "result",
        "Interrupted": "result",
        "TrainConfig": "config",
        "Trained": "result",
        "train": "loop",
    },
)
__all__ = ["Budget", "Diverged", "Interrupted", "TrainConfig", "Trained", "train"]
