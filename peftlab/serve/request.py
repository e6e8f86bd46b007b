"""What goes into the engine and what comes out: requests, tickets, pieces of text, replies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Literal

from peftlab.errors import InputError
from peftlab.serve.prompt import Source, check_source
from peftlab.structured import Structure
from peftlab.tasks import Decoding
from peftlab.tasks.task import check_structured

MOST_STOPS = 16
_MOST_LOGPROBS = 20

Finished = Literal["end", "length", "stop", "cancelled"]


@dataclass(frozen=True)
class ServeRequest:
    """One text for one adapter.

    Attributes:
        adapter: its name in the library.
        source: a text or an example for the adapter's own template; token ids or a chat, see
            `prompt`, stand beside it.
        max_new_tokens, min_new_tokens: the output's length in tokens; its end is not counted. None
            at all where only the prompt is asked about.
        decoding: greedy by default; beams are not served.
        seed: of a sampled reply, which then depends on nothing else; None draws one.
        stop: the reply ends before the first of these strings. stop_ids: or before one of these
            tokens.
        logprobs: None for none, else how many alternatives are told beside each chosen token; under
            a structure, of the tokens that it allows alone.
        prompt_logprobs: the same of the prompt's tokens, which `Reply.prompt` then has; None: none.
        structure: that the reply follows.
        truncate: cut a source that does not fit, as in training, instead of refusing it.
        tenant: on whose account; what one tenant's requests have read is not known to another's.
    """

    adapter: str
    source: Source
    max_new_tokens: int = 64
    min_new_tokens: int = 0
    decoding: Decoding = field(default_factory=Decoding)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    structure: Structure | None = None
    truncate: bool = False
    tenant: str = ""

    def check(self) -> None:
        """Refuse what no adapter could answer.

        Raises:
            InputError: names the field, what it was and what was expected.
        """
        check_source(self.source)
        least = 1 if self.prompt_logprobs is None else 0
        _within("max_new_tokens", self.max_new_tokens, least, None)
        _within("min_new_tokens", self.min_new_tokens, 0, self.max_new_tokens)
        for name in ("logprobs", "prompt_logprobs"):
            if (count := getattr(self, name)) is not None:
                _within(name, count, 0, _MOST_LOGPROBS)
        if len(self.stop) > MOST_STOPS or not all(self.stop):
            raise InputError(
                f"stop is {list(self.stop)!r}; at most {MOST_STOPS} strings were expected, none "
                "of them empty"
            )
        _check_decoding(self.decoding)
        if self.structure is not None:
            self._check_structured()

    def _check_structured(self) -> None:
        """Refuse what a structure could not be followed under."""
        check_structured(self.decoding, self.min_new_tokens)
        if self.stop_ids:
            raise InputError(
                f"stop_token_ids is {list(self.stop_ids)}, and the reply is to follow a structure, "
                "which says itself when it ends; leave stop_token_ids out"
            )


def _within(name: str, value: int, least: int, most: int | None) -> None:
    if value < least or (most is not None and value > most):
        expected = f"at least {least}" if most is None else f"{least} to {most}"
        raise InputError(f"{name} is {value}; {expected} was expected")


def _check_decoding(decoding: Decoding) -> None:
    if decoding.beams != 1:
        raise InputError(f"beams is {decoding.beams}; the engine serves greedy and sampled replies")
    if decoding.json_schema:
        raise InputError("json_schema is set; the engine takes a `structure` instead")
    if decoding.no_newlines:
        raise InputError("no_newlines is set; the engine allows line breaks: use `stop` instead")


@dataclass(frozen=True)
class Token:
    """A produced token. logprob and alternatives (token id, logprob) only where asked for."""

    id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What a step adds to a reply: text that is final, and the tokens since the piece before."""

    text: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Reply:
    """A whole reply: the pieces' texts end to end, and how it came to be.

    Attributes:
        tokens: without the end. dropped: source tokens that were cut; of a text far too
            long, those of the part that was read.
        version: which version of the adapter, counted from 1, has answered.
        cached_tokens: of the prompt, those that were known already and not read again.
        prompt_ids: the prompt as it was read, template and pseudo tokens included.
        prompt: its tokens but for pseudo tokens, with log-probabilities, where those are asked for;
            the first has none. end: the token that ended it, if one did.
        waited, first, seconds: from being asked until it joined the batch, until its first token,
            and until now. `first` is None where there was none.
    """

    text: str
    tokens: tuple[Token, ...]
    finished: Finished
    prompt_tokens: int
    dropped: int
    version: int
    waited: float
    first: float | None
    seconds: float
    cached_tokens: int = 0
    prompt_ids: tuple[int, ...] = ()
    prompt: tuple[Token, ...] = ()
    end: Token | None = None


Event = Piece | Reply | Exception
Listener = Callable[[Event], None]


class Ticket:
    """A request that the engine has taken: its pieces, its reply, and the way to call it off."""

    def __init__(self, request: ServeRequest, listener: Listener | None = None) -> None:
        self.request = request
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._listener = listener or self._events.put
        self._over = threading.Event()
        self._outcome: Reply | Exception | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Let the reply end with the next step, wherever it stands; twice is once."""
        self.cancelled = True

    @property
    def done(self) -> bool:
        """Whether there is a reply or an error."""
        return self._over.is_set()

    def result(self, timeout: float | None = None) -> Reply:
        """Wait for the reply.

        Raises:
            PeftlabError: why there is none. TimeoutError: there is none yet.
        """
        if not self._over.wait(timeout):
            raise TimeoutError(f"no reply within {timeout} s")
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def __iter__(self) -> Iterator[Piece]:
        """The pieces as they come; an error is raised after those that came before it."""
        while isinstance(event := self._events.get(), Piece):
            yield event
        if isinstance(event, Exception):
            raise event

    def tell(self, event: Event) -> None:
        """The engine's side: pass an event on; the last one is a reply or an error."""
        if not isinstance(event, Piece):
            self._outcome = event
        try:
            self._listener(event)
        finally:
            if not isinstance(event, Piece):
                self._over.set()
