"""Generation: rows of many adaptations in one batch, joining and leaving at any step."""

from peftlab.generation.owner import Owner, prepare, prepare_each
from peftlab.generation.run import Reply, Request, generate, read_targets
from peftlab.generation.session import Session
from peftlab.generation.state import DecodingState, rows_of

__all__ = [
    "DecodingState",
    "Owner",
    "Reply",
    "Request",
    "Session",
    "generate",
    "prepare",
    "prepare_each",
    "read_targets",
    "rows_of",
]
