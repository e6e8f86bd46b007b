"""What a training will cost, said before it runs: parameters, bytes, peak memory, seconds."""

from peftlab.estimate.miniature import Miniature
from peftlab.estimate.prediction import Prediction
from peftlab.estimate.probe import probe

__all__ = ["Miniature", "Prediction", "probe"]
