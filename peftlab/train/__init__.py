"""One training loop for every method."""

from peftlab.train.budget import Budget
from peftlab.train.config import TrainConfig
from peftlab.train.loop import train
from peftlab.train.result import Diverged, Interrupted, Trained

__all__ = ["Budget", "Diverged", "Interrupted", "TrainConfig", "Trained", "train"]
