"""What the engine refuses, each as a type of its own, since a server answers each differently."""

from __future__ import annotations

from peftlab.errors import InputError, PeftlabError


class UnknownAdapter(InputError):
    """No adapter has this name."""


class RefusedAdapter(InputError):
    """The adapter is there and cannot be used: for another base, damaged, pickled, too large."""


class PromptTooLong(InputError):
    """The prompt does not fit beside its reply."""


class QueueFull(PeftlabError):
    """As many requests are waiting as may; the same request can be made again later."""


class Closed(PeftlabError):
    """The engine is stopping and takes nothing new."""


class Failed(PeftlabError):
    """A request that was running came to nothing, through no fault of what was asked."""
