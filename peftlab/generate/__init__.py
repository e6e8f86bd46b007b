"""Generation: rows of many adaptations in one batch, joining and leaving at any step."""

from peftlab.generate.owner import Owner, prepare
from peftlab.generate.run import Reply, Request, generate
from peftlab.generate.session import Sequence_, Session

__all__ = ["Owner", "Reply", "Request", "Sequence_", "Session", "generate", "prepare"]
