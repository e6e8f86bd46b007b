"""Generation: rows of many adaptations in one batch, joining and leaving at any step."""

from peftlab.generate.owner import Owner, prepare
from peftlab.generate.run import Reply, Request, generate
from peftlab.generate.session import Session
from peftlab.generate.state import DecodingState

__all__ = ["DecodingState", "Owner", "Reply", "Request", "Session", "generate", "prepare"]
