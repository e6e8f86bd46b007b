"""Generation: rows of many adaptations in one batch, joining and leaving at any step."""

from peftlab.generation.owner import Owner, prepare
from peftlab.generation.run import Reply, Request, generate, read_targets
from peftlab.generation.session import Session
from peftlab.generation.state import DecodingState

__all__ = [
    "DecodingState",
    "Owner",
    "Reply",
    "Request",
    "Session",
    "generate",
    "prepare",
    "read_targets",
]
