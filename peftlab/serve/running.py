"""A request on its way through the engine: waiting, reading its prompt, producing tokens."""

from __future__ import annotations

import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from peftlab.generation.owner import Owner
from peftlab.generation.state import DecodingState
from peftlab.serve.loaded import LoadedAdapter, RowLimits
from peftlab.serve.prompt_cache import Holder
from peftlab.serve.request import Finished, Piece, Reply, ServeRequest, Ticket, Token
from peftlab.serve.text import TextStream
from peftlab.tasks import Encoded

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM


@dataclass(eq=False)
class Waiting:
    """A queued request; `encoded` is its prompt for one version of its adapter, if already made."""

    ticket: Ticket
    stream: bool
    since: float = field(default_factory=time.perf_counter)
    encoded: tuple[LoadedAdapter, Encoded] | None = None

    @property
    def request(self) -> ServeRequest:
        """What is asked."""
        return self.ticket.request

    @property
    def adapter(self) -> str:
        """Whose turn it waits for."""
        return self.ticket.request.adapter

    def encode(self, model: FrozenLM, adapter: LoadedAdapter, limits: RowLimits) -> Encoded:
        """Its prompt for this version, made once."""
        if self.encoded is None or self.encoded[0] is not adapter:
            self.encoded = adapter, adapter.encode(model, self.request, limits)
        return self.encoded[1]


class Running:
    """A row of the batch.

    Attributes:
        unread: prompt tokens that the model has not read yet; it decodes once there are none.
        ids: its whole prompt, what its owner's rows start with included. first: their place in its
            slot. common: how many of its tokens leave keys and values that are its holder's.
        entered: how many are known to the cache of prompts, or were offered to it. cached: those
            that it knew first. looked: whether it was asked.
        least: how many tokens come before its end may. ends: the tokens that end it.
    """

    def __init__(
        self, waiting: Waiting, adapter: LoadedAdapter, encoded: Encoded, model: FrozenLM
    ) -> None:
        self.ticket, self.request, self.stream = waiting.ticket, waiting.request, waiting.stream
        self.adapter, self._encoded = adapter, encoded
        owner = adapter.owner(encoded, model)
        self.row = DecodingState.of(owner, encoded)
        self.unread = len(self.row.prompt)
        self._shares(adapter, owner, encoded)
        self.ends = adapter.ends_of(model, self.request)
        decoding = self.request.decoding
        self.least = max(self.request.min_new_tokens, decoding.min_new_tokens)
        seed = secrets.randbits(32) if self.request.seed is None else self.request.seed
        self.generator = torch.Generator().manual_seed(seed % (1 << 63))
        self._text = TextStream(model.tokenizer, self.request.stop)
        self._reads = self.stream or bool(self.request.stop)  # whether text is made at every step
        self._tokens: list[Token] = []
        self._pieces: list[str] = []
        self._untold = 0  # tokens that no piece has told yet
        self._since, self._joined = waiting.since, time.perf_counter()
        self._first: float | None = None

    def _shares(self, adapter: LoadedAdapter, owner: Owner, encoded: Encoded) -> None:
        """Whose keys and values its own are: from its cue on nobody's."""
        at_cue = owner.edits.begin == "cue"
        self.ids = encoded.ids
        self.holder = Holder("" if at_cue else adapter.fingerprint, self.request.tenant)
        self.first = 0 if at_cue else owner.prefix_length - len(owner.lead)
        self.common = self.row.begin if at_cue else sys.maxsize
        self.entered, self.cached, self.looked = len(owner.lead), 0, False

    @property
    def read(self) -> int:
        """How many of its tokens have left keys and values; from its cue on more, by a prefix."""
        return self.row.past - self.first

    @property
    def common_read(self) -> int:
        """How many of those are its holder's."""
        return min(self.read, self.common)

    @property
    def shareable(self) -> int:
        """How many of its prompt's tokens need not be read where they are known: something has to
        be, so that there are scores of what follows."""
        return min(self.common, len(self.ids) - 1)

    def skipped(self, count: int) -> None:
        """Some of its prompt's tokens were known, and need not be read."""
        self.unread -= count
        self.cached += count

    @property
    def decodes(self) -> bool:
        """Whether it feeds on its own last token."""
        return self.unread == 0

    def next_input(self, most: int) -> tuple[int, ...] | list[int]:
        """What it reads in this step: at most so many prompt tokens, or its last token.

        What comes before the cue and what comes after it are not read in one step.
        """
        if self.decodes:
            return [self.row.tokens[-1]]
        start, stop = len(self.row.prompt) - self.unread, len(self.row.prompt)
        if self.row.is_before_cue:
            stop = self.row.begin
        return tuple(self.row.prompt[start : min(stop, start + most)])

    def accept(self, token: Token) -> Finished | None:
        """Take the next token; returns how the reply ends, if it does."""
        self._first = self._first or time.perf_counter()
        self.row.tokens.append(token.id)
        if token.id in self.ends:
            return "end"
        self._tokens.append(token)
        if self._reads:
            self._tell(self._text.add(token.id))
        if self._text.stopped:
            return "stop"
        return "length" if len(self._tokens) >= self.request.max_new_tokens else None

    def finish(self, how: Finished) -> Reply:
        """The reply, as it stands."""
        if not self._reads:
            for token in self._tokens:
                self._pieces.append(self._text.add(token.id))
        self._tell(self._text.finish())
        return self._reply(how)

    def mute(self) -> None:
        """Tell no more pieces, since nobody hears them."""
        self.stream = False

    def _tell(self, text: str) -> None:
        self._pieces.append(text)
        fresh = tuple(self._tokens[self._untold :])
        if self.stream and (text or (fresh and self.request.logprobs is not None)):
            self._untold = len(self._tokens)
            self.ticket.tell(Piece(text, fresh))

    def _reply(self, how: Finished) -> Reply:
        now = time.perf_counter()
        return Reply(
            text="".join(self._pieces),
            tokens=tuple(self._tokens),
            finished=how,
            prompt_tokens=len(self._encoded.ids),
            dropped=self._encoded.dropped,
            version=self.adapter.version,
            waited=self._joined - self._since,
            first=None if self._first is None else self._first - self._since,
            seconds=now - self._since,
            cached_tokens=self.cached,
        )


def nothing(waiting: Waiting) -> Reply:
    """The reply of a request that was called off before it began."""
    gone = time.perf_counter() - waiting.since
    return Reply("", (), "cancelled", 0, 0, 0, gone, None, gone)
