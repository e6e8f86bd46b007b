"""One training loop for every method."""

from peftlab.training.budget import Budget
from peftlab.training.config import TrainConfig
from peftlab.training.loop import train
from peftlab.training.result import Diverged, Interrupted, Trained

__all__ = ["Budget", "Diverged", "Interrupted", "TrainConfig", "Trained", "train"]
