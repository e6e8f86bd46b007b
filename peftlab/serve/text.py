"""Tokens to text, piece by piece: never half a character, never past a stop string.

The pieces end to end are `tokenizer.decode(tokens).strip()`, cut before the first stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_BROKEN = "\N{REPLACEMENT CHARACTER}"  # what decoding gives for a character that is not whole yet


class TextStream:
    """The text of one reply while its tokens come in.

    Attributes:
        stopped: a stop string has come; everything before it has been given out.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._tokens: list[int] = []
        # A token's text hangs on those before it: some tokenizers drop the first space, and not
        # that of a second token. So tokens are decoded from `_start` on, and `_known` is the text
        # of those that are in `_held` or given out.
        self._start = self._read = 0
        self._known = ""
        self._held = ""
        self._begun = self.stopped = False

    def add(self, token: int) -> str:
        """Take a token in; returns the text that nothing to come can change."""
        self._tokens.append(token)
        whole = self._decode(self._tokens[self._start :])
        if whole.endswith(_BROKEN):
            return ""
        text, own = whole[len(self._known) :], self._decode(self._tokens[self._read :])
        if own.strip():  # from here on, what follows does not hang on what came before
            self._start, whole = self._read, own
        self._read, self._known = len(self._tokens), whole
        return self._give(text, last=False)

    def finish(self) -> str:
        """The rest, when no token will follow."""
        if self.stopped:
            return ""
        rest = self._decode(self._tokens[self._start :])[len(self._known) :]
        return self._give(rest, last=True)

    def _decode(self, tokens: Sequence[int]) -> str:
        # Cleaning up would change text that is already given out.
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _give(self, text: str, last: bool) -> str:
        """Append to what is held, and take from it all that is certain, without outer space."""
        held = self._held + text
        ends = [at for at in (held.find(stop) for stop in self._stops) if at >= 0]
        if ends:
            held, last, self.stopped = held[: min(ends)], True, True
        certain = held if last else held[: len(held) - self._possible_stop(held)]
        given = certain.rstrip()
        self._held = "" if last else held[len(given) :]
        if not self._begun:
            given = given.lstrip()
            self._begun = bool(given)
        return given

    def _possible_stop(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        return next(
            (
                size
                for size in range(min(longest, len(text)), 0, -1)
                if any(stop.startswith(text[-size:]) for stop in self._stops)
            ),
            0,
        )
