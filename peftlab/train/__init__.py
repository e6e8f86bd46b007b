"""One training loop for every method."""

from peftlab.train.config import TrainConfig
from peftlab.train.loop import Diverged, Interrupted, Trained, train

__all__ = ["Diverged", "Interrupted", "TrainConfig", "Trained", "train"]
