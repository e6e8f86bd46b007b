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
        # Tokens from `_start` on are decoded together, since some tokenizers write a token's space
        # only after another token; the text of those up to `_read` is in `_held` or given out.
        self._start = self._read = 0
        self._held = ""
        self._begun = self.stopped = False

    def add(self, token: int) -> str:
        """Take a token in; returns the text that nothing to come can change."""
        self._tokens.append(token)
        text = self._new_text()
        if text.endswith(_BROKEN):
            return ""
        self._start, self._read = self._read, len(self._tokens)
        return self._give(text, last=False)

    def finish(self) -> str:
        """The rest, when no token will follow."""
        return "" if self.stopped else self._give(self._new_text(), last=True)

    def _new_text(self) -> str:
        known = self._decode(self._tokens[self._start : self._read])
        return self._decode(self._tokens[self._start :])[len(known) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        # Cleaning up would change text that is already given out.
        found: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return found

    def _give(self, text: str, last: bool) -> str:
        """Append to what is held, and take from it all that is certain, without outer space."""
        held = self._held + text
        found = [at for at in (held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            held, last, self.stopped = held[: min(found)], True, True
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
