"""Serving: one frozen model, many adaptations of any method in one batch, under names."""

from peftlab.serve.engine import Engine
from peftlab.serve.errors import (
    Closed,
    Failed,
    PromptTooLong,
    QueueFull,
    RefusedAdapter,
    UnknownAdapter,
)
from peftlab.serve.library import Library
from peftlab.serve.limits import Limits, Stats
from peftlab.serve.prompt import Chat
from peftlab.serve.request import Piece, Reply, ServeRequest, Ticket, Token

__all__ = [
    "Chat",
    "Closed",
    "Engine",
    "Failed",
    "Library",
    "Limits",
    "Piece",
    "PromptTooLong",
    "QueueFull",
    "RefusedAdapter",
    "Reply",
    "ServeRequest",
    "Stats",
    "Ticket",
    "Token",
    "UnknownAdapter",
]
