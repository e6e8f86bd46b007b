"""Generation: rows of many adaptations in one batch, joining and leaving at any step."""

from peftlab.generation.owner import Owner, prepare
from peftlab.generation.run import Reply, Request, generate
from peftlab.generation.session import Sequence_, Session

__all__ = ["Owner", "Reply", "Request", "Sequence_", "Session", "generate", "prepare"]
