"""A request on its way through the engine: waiting, reading its prompt, producing tokens."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from peftlab.frozen.mixing import mixed
from peftlab.generation.choose import Written
from peftlab.generation.state import DecodingState, rows_of
from peftlab.serve.loaded import LoadedAdapter, RowLimits
from peftlab.serve.prompt_cache import Holder
from peftlab.serve.request import Finished, Piece, Reply, ServeRequest, Ticket, Token
from peftlab.serve.text import TextStream
from peftlab.structured import Guide
from peftlab.tasks import Encoded

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM


@dataclass(eq=False)
class Waiting:
    """A queued request; `encoded` is its prompt for one version of its adapter, if already made.

    guide: of the structure that it is to follow.
    """

    ticket: Ticket
    stream: bool
    guide: Guide | None = None
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


class RunningRow:
    """A row of the batch: a request's, or one of several that a mixture's experts have for it.

    Attributes:
        running: the request. row: its state in the batch.
        unread: prompt tokens that the model has not read yet; it decodes once there are none.
        ids: its whole prompt, what its owner's rows start with included. first: their place in its
            slot. common: how many of its tokens leave keys and values that are its holder's.
        entered: how many are known to the cache of prompts, or were offered to it. cached: those
            that it knew first. looked: whether it was asked.
        said: its logits [V] for the next token, while other experts have yet to say theirs.
        told: of its prompt, where that is echoed.
    """

    def __init__(
        self, running: Running, row: DecodingState, ids: tuple[int, ...], fingerprint: str
    ) -> None:
        self.running, self.row, self.ids = running, row, ids
        self.unread = len(row.prompt)
        at_cue = row.owner.edits.begin == "cue"  # from its cue on its keys and values are nobody's
        self.holder = Holder("" if at_cue else fingerprint, running.request.tenant)
        self.first = 0 if at_cue else row.owner.prefix_length - len(row.owner.lead)
        self.common = row.begin if at_cue else sys.maxsize
        self.entered, self.cached, self.looked = len(row.owner.lead), 0, False
        self.said: torch.Tensor | None = None
        self.told: list[Token] = []

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
        be, so that there are scores of what follows; of an echo all has."""
        return 0 if self.echoes else min(self.common, len(self.ids) - 1)

    @property
    def echoes(self) -> bool:
        """Whether the log-probabilities of its prompt are asked for."""
        return self.running.request.prompt_logprobs is not None

    def wanted(self, ids: Sequence[int]) -> int:
        """After how many of the tokens that it reads logits are wanted."""
        if self.echoes and self.unread:
            return len(ids)
        return int(self.unread <= len(ids))

    def hear_prompt(self, count: int, logits: torch.Tensor) -> None:
        """Take the logits [T, V] after the `count` prompt tokens that were just read."""
        first = len(self.row.prompt) - self.unread - count
        if not first:
            self.told.append(Token(self.row.prompt[0]))
        following = self.row.prompt[first + 1 : first + 1 + count]
        if not following:
            return
        chances = logits[: len(following)].float().log_softmax(-1)
        places = torch.tensor(following, device=chances.device).clamp(min=0)  # pseudo tokens: no
        own = chances.gather(-1, places[:, None]).flatten().tolist()
        best = chances.topk(self.running.request.prompt_logprobs or 0)
        each = zip(following, own, best.indices.tolist(), best.values.tolist(), strict=True)
        for token, chance, ids, values in each:
            self.told.append(Token(token, chance, tuple(zip(ids, values, strict=True))))

    def skipped(self, count: int) -> None:
        """Some of its prompt's tokens were known, and need not be read."""
        self.unread -= count
        self.cached += count

    @property
    def decodes(self) -> bool:
        """Whether it feeds on its own last token."""
        return self.unread == 0 and self.said is None

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


class Running:
    """A request in the batch.

    Attributes:
        rows: one, of a mixture one an expert, which share what is produced.
        least: how many tokens come before its end may. ends: the tokens that end it.
        has_left: whether its rows' slots may be others' by now.
    """

    def __init__(
        self, waiting: Waiting, adapter: LoadedAdapter, encoded: Encoded, model: FrozenLM
    ) -> None:
        self.ticket, self.request, self.stream = waiting.ticket, waiting.request, waiting.stream
        self.adapter, self._encoded, self.has_left = adapter, encoded, False
        whole = self.request.prompt_logprobs is not None
        states = rows_of(model, adapter.owners(encoded, model, whole), encoded)
        self.rows = [
            RunningRow(self, state, own.ids, start.fingerprint)
            for state, own, start in zip(states, encoded.rows, adapter.starts, strict=True)
        ]
        self.tokens, self.guide = states[0].tokens, waiting.guide
        self.ends = (*adapter.ends_of(model, self.request), *self.request.stop_ids)
        decoding = self.request.decoding
        self.least = max(self.request.min_new_tokens, decoding.min_new_tokens)
        seed = secrets.randbits(32) if self.request.seed is None else self.request.seed
        self.generator = torch.Generator().manual_seed(seed % (1 << 63))
        self._text = TextStream(model.tokenizer, self.request.stop)
        self._reads = self.stream or bool(self.request.stop)  # whether text is made at every step
        self._told: list[Token] = []
        self._pieces: list[str] = []
        self._end: Token | None = None
        self._untold = 0  # tokens that no piece has told yet
        self._since, self._joined = waiting.since, time.perf_counter()
        self._first: float | None = None

    @property
    def written(self) -> Written:
        """It, as far as it is written."""
        return Written(self.tokens, self.ends, self.least, self.rows[0].ids, self.guide)

    def hear(self, row: RunningRow, logits: torch.Tensor) -> torch.Tensor | None:
        """Take the logits [V] of one of its rows; returns the mixture's once it has them all."""
        row.said = logits
        said = [one.said for one in self.rows if one.said is not None]
        if len(said) < len(self.rows):
            return None
        for one in self.rows:
            one.said = None
        return mixed(torch.stack(said), self.adapter.edits.shares)

    def accept(self, token: Token) -> Finished | None:
        """Take the next token; returns how the reply ends, if it does."""
        if not self.request.max_new_tokens:
            return "length"
        self._first = self._first or time.perf_counter()
        self.tokens.append(token.id)
        if token.id in self.ends:
            self._end = token
            return "end"
        self._told.append(token)
        if self._reads:
            self._tell(self._text.add(token.id))
        if self._text.stopped:
            return "stop"
        if self.guide is not None and self.guide.is_complete(self.tokens):
            return "end"
        return "length" if len(self._told) >= self.request.max_new_tokens else None

    def finish(self, how: Finished) -> Reply:
        """The reply, as it stands."""
        if not self._reads:
            for token in self._told:
                self._pieces.append(self._text.add(token.id))
        self._tell(self._text.finish())
        return self._reply(how)

    def mute(self) -> None:
        """Tell no more pieces, since nobody hears them."""
        self.stream = False

    def _tell(self, text: str) -> None:
        self._pieces.append(text)
        fresh = tuple(self._told[self._untold :])
        if self.stream and (text or (fresh and self.request.logprobs is not None)):
            self._untold = len(self._told)
            self.ticket.tell(Piece(text, fresh))

    def _reply(self, how: Finished) -> Reply:
        now = time.perf_counter()
        return Reply(
            text="".join(self._pieces),
            tokens=tuple(self._told),
            finished=how,
            prompt_tokens=sum(len(row.ids) for row in self.rows),
            dropped=self._encoded.dropped,
            version=self.adapter.version,
            waited=self._joined - self._since,
            first=None if self._first is None else self._first - self._since,
            seconds=now - self._since,
            cached_tokens=sum(row.cached for row in self.rows),
            prompt_ids=self._encoded.ids,
            prompt=tuple(token for token in self.rows[0].told if token.id >= 0),
            end=self._end,
        )


def nothing(waiting: Waiting) -> Reply:
    """The reply of a request that was called off before it began."""
    gone = time.perf_counter() - waiting.since
    return Reply("", (), "cancelled", 0, 0, 0, gone, None, gone)
